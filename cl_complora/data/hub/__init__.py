"""Sets in the formats of the Hugging Face hub: saved folders, parquet files and their columns."""
