"""What factors start from: noise, singular triples, variance of inputs, the first gradient."""
