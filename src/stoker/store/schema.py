"""The tables as the code of today sees them. ``migrations`` is what makes them, from any earlier revision."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from stoker.store.columns import words

metadata = MetaData()
"""Tables of the metadata database."""

queue_metadata = MetaData()
"""Tables of the queue's own database (one writer a file)."""

functions = Table(
    "functions",
    metadata,
    Column("account", words(12), primary_key=True),
    Column("region", words(32), primary_key=True),
    Column("name", words(140), primary_key=True),
    Column("created_at_s", Float, nullable=False),
    Column("reserved_concurrency", Integer),
    Column("tags", LargeBinary, nullable=False),
    Column("last_version", Integer, nullable=False, server_default="0"),
)

versions = Table(
    "function_versions",
    metadata,
    Column("account", words(12), primary_key=True),
    Column("region", words(32), primary_key=True),
    Column("name", words(140), primary_key=True),
    Column("version", words(32), primary_key=True),
    Column("revision_id", words(36), nullable=False),
    Column("code_sha256", words(44), nullable=False),
    Column("code_size_bytes", BigInteger, nullable=False),
    Column("settled", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("environment_sealed", LargeBinary),
    ForeignKeyConstraint(
        ["account", "region", "name"],
        ["functions.account", "functions.region", "functions.name"],
        ondelete="CASCADE",
    ),
    Index("function_versions_code", "code_sha256"),
    Index("function_versions_settled", "settled"),
)

version_layers = Table(
    "function_version_layers",
    metadata,
    Column("account", words(12), primary_key=True),
    Column("region", words(32), primary_key=True),
    Column("name", words(140), primary_key=True),
    Column("version", words(32), primary_key=True),
    Column("code_sha256", words(44), primary_key=True),
    ForeignKeyConstraint(
        ["account", "region", "name", "version"],
        [f"function_versions.{name}" for name in ("account", "region", "name", "version")],
        ondelete="CASCADE",
    ),
    Index("function_version_layers_code", "code_sha256"),
)
"""Which code the layers of versions are, and which images are to replace theirs; the documents say it all."""

records = Table(
    "records",
    metadata,
    Column("kind", words(40), primary_key=True),
    Column("account", words(12), primary_key=True),
    Column("region", words(32), primary_key=True),
    Column("owner", words(256), primary_key=True),
    Column("name", words(256), primary_key=True),
    Column("revision_id", words(36), nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("function", words(140)),
    Column("lookups", Text, nullable=False),
    ForeignKeyConstraint(
        ["account", "region", "function"],
        ["functions.account", "functions.region", "functions.name"],
        ondelete="CASCADE",
    ),
    Index("records_function", "account", "region", "function"),
)
"""Documents of ``services.records``; their lookups, one a line, and again one a row below."""

record_lookups = Table(
    "record_lookups",
    metadata,
    Column("kind", words(40), primary_key=True),
    Column("account", words(12), primary_key=True),
    Column("region", words(32), primary_key=True),
    Column("lookup", words(2048), primary_key=True),
    Column("owner", words(256), primary_key=True),
    Column("name", words(256), primary_key=True),
    ForeignKeyConstraint(
        ["kind", "account", "region", "owner", "name"],
        ["records.kind", "records.account", "records.region", "records.owner", "records.name"],
        ondelete="CASCADE",
    ),
    Index("record_lookups_record", "kind", "account", "region", "owner", "name"),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("access_key_id", words(128), primary_key=True),
    Column("account", words(12), nullable=False),
    Column("principal_arn", words(2048), nullable=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("created_at_s", Float, nullable=False),
)

events = Table(
    "events",
    queue_metadata,
    Column("request_id", words(64), primary_key=True),
    Column("account", words(12), nullable=False),
    Column("region", words(32), nullable=False),
    Column("name", words(140), nullable=False),
    Column("qualifier", words(128), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("accepted_at_s", Float, nullable=False),
    Column("due_at_s", Float, nullable=False),
    Column("taken_due_at_s", Float),
    Column("attempts", Integer, nullable=False),
    Column("throttles", Integer, nullable=False),
    Column("client_context", String),
    Column("trace_id", String),
    Column("size_bytes", Integer, nullable=False),
    Index("events_due", "due_at_s"),
)

deliveries = Table(
    "deliveries",
    queue_metadata,
    Column("delivery_id", words(128), primary_key=True),
    Column("kind", words(16), nullable=False),
    Column("request_id", words(64), nullable=False),
    Column("function_arn", words(400), nullable=False),
    Column("destination", words(400), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attributes", LargeBinary, nullable=False),
    Column("created_at_s", Float, nullable=False),
    Column("due_at_s", Float, nullable=False),
    Column("taken_due_at_s", Float),
    Column("failures", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Index("deliveries_due", "due_at_s"),
)
"""Records of events that ended, until their destinations have taken them."""

stream_shards = Table(
    "stream_shards",
    queue_metadata,
    Column("mapping", words(36), primary_key=True),
    Column("shard_id", words(128), primary_key=True),
    Column("progress", LargeBinary, nullable=False),
    Column("owner", words(36)),
    Column("until_s", Float, nullable=False),
    Column("term", Integer, nullable=False),
    Index("stream_shards_owner", "owner"),
)
"""How far the shards of event source mappings are processed. In the queue's database, so that a batch that is
given up is kept as a delivery in the transaction that goes on behind it."""
