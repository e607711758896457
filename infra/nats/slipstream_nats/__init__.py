"""The log on NATS JetStream: append, tail, work, leases, requests. The only importer of `nats`."""
