"""Pictures with captions or several labels: layouts, tasks, sets for retrieval."""
