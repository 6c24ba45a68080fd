"""Measured against peers: every benchmark runs both sides in one call and refuses a side that computes
something else.

python -m benchmarks NAME [--quick] [--json FILE] [--device cpu|cuda]
"""
