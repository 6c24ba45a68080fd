"""What several test files make or ask: models, pictures, runs, files, commands. Fixtures: fixtures.py."""
