"""What several test files make or ask: models, pictures, runs, files, commands. Fixtures are in conftest.py."""
