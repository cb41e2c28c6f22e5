"""gRPC: the services of tvix and snix, and one of our own, served to others and used of others."""
