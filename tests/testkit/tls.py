"""Certificates, and TLS in front of a Postgres that was built without it."""

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import trustme

HOST: Final = "127.0.0.1"
SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
"""What a driver of Postgres sends first to ask for TLS. Source: PostgreSQL protocol, SSLRequest."""


class Certificates(msgspec.Struct):
    """Files in a folder: an authority, a server of a name, a client."""

    ca_file: str
    cert_file: str
    key_file: str
    client_cert_file: str
    client_key_file: str

    def server_context(self) -> ssl.SSLContext:
        """How a server shows its certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


def issue(root: Path, name: str = HOST) -> Certificates:
    """New certificates of a new authority, for a server of that name."""
    root.mkdir(parents=True)
    authority = trustme.CA()
    files = Certificates(*(str(root / f"{each}.pem") for each in ("ca", "cert", "key", "client-cert", "client-key")))
    authority.cert_pem.write_to_path(files.ca_file)
    for issued, cert, key in (
        (authority.issue_cert(name), files.cert_file, files.key_file),
        (authority.issue_cert("client"), files.client_cert_file, files.client_key_file),
    ):
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        Path(key).chmod(0o600)
    return files


class PostgresTls:
    """A door with TLS to a Postgres. `refused` counts connections that did not ask for TLS."""

    def __init__(self, port: int, certificates: Certificates) -> None:
        self._behind, self._context = port, certificates.server_context()
        self._server: asyncio.Server | None = None
        self.port, self.refused, self.encrypted = 0, 0, 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                self.refused += 1
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self._behind)
            try:
                await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
            finally:
                inner_writer.close()
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
