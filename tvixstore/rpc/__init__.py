"""gRPC: the services of tvix and snix, and one of our own, served to others and used of others.

Whoever serves has `server`, whoever asks `client`: neither loads the other.
"""
