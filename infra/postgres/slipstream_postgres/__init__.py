"""The read model's tables and their queries on Postgres. The only importer of SQLAlchemy, Alembic and asyncpg."""
