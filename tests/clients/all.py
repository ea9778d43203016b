"""Unmodified clients write to a real Floodmark; foreign readers read its tables while it is not running.

    python tests/clients/all.py PATH_OF_THE_BINARY
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

KEY = "a-bootstrap-key-for-tests-only-0123456789"


def own_variables():
    """The environment without the tests' own variables: the engine refuses those it does not know."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FLOODMARK_")}


class Server:
    """The engine on a folder of its own and a free port."""

    def __init__(self, binary, data):
        self.binary, self.data = binary, data
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data", self.data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
            # Few files are merged already, so that the readers meet commits that remove files.
            env={
                **own_variables(),
                "FLOODMARK_BOOTSTRAP_KEY": KEY,
                "FLOODMARK_STORAGE__COMPACT_FILES_MIN": "4",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if line.startswith("listening http="):
                self.url = "http://" + line.split("http=")[1].split()[0]
                # Its log must go on being read, or the pipe fills and it waits.
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return
        raise SystemExit("the engine did not start")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(20)
        assert status == 0, f"SIGTERM ended with {status}"

    def call(self, method, path, body=None, content_type="application/json"):
        request = urllib.request.Request(
            self.url + path,
            data=body,
            method=method,
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": content_type},
        )
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()

    def json(self, path):
        return json.loads(self.call("GET", path)[1])

    def sql(self, query):
        return json.loads(self.call("POST", "/api/v1/sql", json.dumps({"query": query}).encode())[1])["rows"]


def opentelemetry_sdk(server):
    """Traces and logs by the OpenTelemetry SDK over http/protobuf with gzip: read back as they were sent."""
    import logging

    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    headers = {"Authorization": f"Bearer {KEY}"}
    resource = Resource.create({"service.name": "checkout", "service.version": "1.2.3", "replicas": 3})
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    exporter = OTLPSpanExporter(
        endpoint=server.url + "/v1/traces", headers=headers, compression=Compression.Gzip
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("shop.checkout", "0.9", attributes={"flavour": "test"})
    for number in range(20):
        with tracer.start_as_current_span("POST /checkout", kind=SpanKind.SERVER) as root:
            root.set_attribute("order.number", number)
            root.set_attribute("order.total", 19.5 + number)
            root.set_attribute("order.whole", 20.0)
            root.set_attribute("vip", number % 2 == 0)
            root.set_attribute("items", ["apple", "pear"])
            root.set_attribute("weights", [1.0, 2.5])
            root.set_attribute("counts", [1, 2])
            root.set_attribute("note", "grüße, \"quoted\" \\ and\nnew line")
            root.add_event("cart.loaded", {"items": 2})
            link = Link(root.get_span_context(), {"why": "retry"})
            with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT, links=[link]) as child:
                child.set_status(Status(StatusCode.ERROR, "declined"))
                child.set_attribute("attempt", 1)
    provider.shutdown()

    kinds = {"SERVER": "server", "CLIENT": "client", "INTERNAL": "internal"}

    def nanoseconds(text):
        whole, fraction = text.rstrip("Z").split(".")
        seconds = int(time.mktime(time.strptime(whole + " UTC", "%Y-%m-%dT%H:%M:%S %Z"))) - time.timezone
        return seconds * 1_000_000_000 + int(fraction.ljust(9, "0"))

    def plain(attributes):
        return {key: list(value) if isinstance(value, tuple) else value for key, value in (attributes or {}).items()}

    def typed(value):
        return json.dumps(value, sort_keys=True)

    compared = 0
    for span in kept.get_finished_spans():
        context = span.get_span_context()
        answer = server.json(f"/api/v1/traces/{context.trace_id:032x}")
        found = next(one for one in answer["spans"] if one["span_id"] == f"{context.span_id:016x}")
        assert found["name"] == span.name
        assert found["parent_span_id"] == (f"{span.parent.span_id:016x}" if span.parent else None)
        assert found["kind"] == kinds[span.kind.name]
        assert nanoseconds(found["start_time"]) == span.start_time, (found["start_time"], span.start_time)
        assert nanoseconds(found["end_time"]) == span.end_time
        assert found["status"]["code"] == span.status.status_code.name.lower()
        assert (found["status"]["message"] or None) == (span.status.description or None)
        assert typed(found["attributes"]) == typed(plain(span.attributes)), (found["attributes"], span.attributes)
        assert [event["name"] for event in found["events"]] == [event.name for event in span.events]
        for stored, sent in zip(found["events"], span.events):
            assert nanoseconds(stored["time"]) == sent.timestamp
            assert typed(stored["attributes"]) == typed(plain(sent.attributes))
        assert [link["span_id"] for link in found["links"]] == [f"{l.context.span_id:016x}" for l in span.links]
        for stored, sent in zip(found["links"], span.links):
            assert stored["trace_id"] == f"{sent.context.trace_id:032x}"
            assert typed(stored["attributes"]) == typed(plain(sent.attributes))
        assert typed(found["resource"]["attributes"]) == typed(plain(resource.attributes))
        assert found["scope"]["name"] == "shop.checkout" and found["scope"]["version"] == "0.9"
        assert typed(found["scope"]["attributes"]) == typed({"flavour": "test"})
        compared += 1

    logs = LoggerProvider(resource=resource)
    set_logger_provider(logs)
    log_exporter = OTLPLogExporter(endpoint=server.url + "/v1/logs", headers=headers, compression=Compression.Gzip)
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    try:
        from opentelemetry.sdk._logs import LoggingHandler
    except ImportError:
        LoggingHandler = None
    if LoggingHandler is None:
        from opentelemetry._logs import LogRecord, SeverityNumber

        logger = logs.get_logger("shop")
        for number in range(10):
            logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.WARN,
                    severity_text="WARN",
                    body=f"order {number} is late",
                    attributes={"number": number},
                )
            )
    else:
        logger = logging.getLogger("shop")
        logger.addHandler(LoggingHandler(logger_provider=logs))
        for number in range(10):
            logger.warning("order %d is late", number, extra={"number": number})
    logs.shutdown()
    found = server.json("/api/v1/logs?source=checkout&limit=100")["logs"]
    assert sorted(log["body"] for log in found) == [f"order {number} is late" for number in range(10)], found
    assert all(log["severity_number"] == 13 for log in found)
    assert sorted(log["attributes"]["number"] for log in found) == list(range(10))
    print(f"OpenTelemetry SDK: {compared} spans equal to what was sent, {len(found)} log records")


def influxdb_client(server):
    """Line protocol by the InfluxDB client, plain lines and NDJSON by curl."""
    from influxdb_client import InfluxDBClient, Point, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS

    client = InfluxDBClient(url=server.url, token=KEY, org="any")
    api = client.write_api(write_options=SYNCHRONOUS)
    points = [
        Point("meter").tag("host", f"h {n % 3}").field("load", n / 4).field("n", n).time(1_700_000_000 + n, WritePrecision.S)
        for n in range(500)
    ]
    api.write(bucket="b", record=points)
    client.close()
    row = server.sql("SELECT count(*) AS c, sum(n) AS s, sum(load) AS l FROM events WHERE event_type = 'meter'")[0]
    assert (row["c"], row["s"], row["l"]) == (500, sum(range(500)), sum(n / 4 for n in range(500))), row
    headers = ["-H", f"Authorization: Bearer {KEY}"]
    lines = "\n".join(f"curl,host=a n={n}i {1_700_000_000 + n}" for n in range(100))
    status = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *headers, "--data-binary", "@-",
         server.url + "/api/v2/write?bucket=b&precision=s"],
        input=lines, capture_output=True, text=True, check=True,
    ).stdout
    assert status == "204", status
    events = "\n".join(json.dumps({"event_type": "curl-json", "n": n}) for n in range(100))
    status = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *headers, "-H", "Content-Type: application/x-ndjson",
         "--data-binary", "@-", server.url + "/api/v1/events"],
        input=events, capture_output=True, text=True, check=True,
    ).stdout
    assert status == "200", status
    for kind in ["curl", "curl-json"]:
        row = server.sql(f"SELECT count(*) AS c, sum(n) AS s FROM events WHERE event_type = '{kind}'")[0]
        assert (row["c"], row["s"]) == (100, 4950), (kind, row)
    print("InfluxDB client and curl: 700 records, counts and sums as sent")


def prometheus(server):
    """`promtool check metrics` accepts what Prometheus would scrape."""
    text = server.call("GET", "/metrics")[1]
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    print(f"promtool: {len(text.splitlines())} lines accepted")


def merged(server):
    """Waits until the small files that the test made are merged."""
    for _ in range(300):
        text = server.call("GET", "/metrics")[1].decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        if float(values["floodmark_compactions_total"]) > 0 and float(values["floodmark_compaction_waiting_files"]) == 0:
            count = int(values["floodmark_compacted_files_total"])
            print(f"compaction: {values['floodmark_compactions_total']} merges of {count} files")
            return
        time.sleep(0.2)
    raise AssertionError("nothing was merged")


def checkpointed(server):
    """Has a checkpoint written that names what the merges left dead, so that the readers begin there."""
    job = json.loads(server.call("POST", "/api/v1/jobs", json.dumps({"kind": "checkpoint"}).encode())[1])
    for _ in range(100):
        status = server.json("/api/v1/jobs/" + job["id"])["status"]
        if status == "succeeded":
            return
        assert status in ("queued", "running"), status
        time.sleep(0.1)
    raise AssertionError("no checkpoint was written")


def foreign_readers(data, expected):
    """deltalake, polars and DuckDB count and sum as SQL did, while the engine is not running."""
    import deltalake
    import duckdb
    import polars

    for dataset, (rows, total) in expected.items():
        root = str(pathlib.Path(data, "store/tenant/default", dataset))
        table = deltalake.DeltaTable(root)
        by_polars = polars.read_delta(root)
        files = [str(pathlib.Path(root, path)) for path in by_delta_files(table, root)]
        by_duckdb = duckdb.sql(f"SELECT count(*), sum(time_ns % 1000) FROM read_parquet({files!r}, union_by_name=true)").fetchall()[0]
        polars_sum = by_polars.select((polars.col("time_ns") % 1000).sum()).item()
        assert by_polars.height == rows, (dataset, by_polars.height, rows)
        assert polars_sum == total, (dataset, polars_sum, total)
        assert by_duckdb == (rows, total), (dataset, by_duckdb, rows, total)
        if dataset == "events":
            pointer = json.loads(pathlib.Path(root, "_delta_log/_last_checkpoint").read_text())
            path = pathlib.Path(root, f"_delta_log/{pointer['version']:020}.checkpoint.parquet")
            dead = polars.read_parquet(path).select(polars.col("remove").struct.field("path").is_not_null().sum()).item()
            assert pointer["version"] == table.version() and dead > 0, (pointer, table.version(), dead)
        removes = sum(action["operation"] == "OPTIMIZE" for action in table.history())
        assert removes > 0 or dataset != "events", "no commit of events replaced files"
        print(f"deltalake, polars, duckdb: {dataset} version {table.version()}, {rows} rows, sums equal")


def by_delta_files(table, root):
    return [uri.split(root + "/")[-1].replace("%3D", "=") for uri in table.file_uris()]


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as data:
        server = Server(binary, data)
        try:
            opentelemetry_sdk(server)
            influxdb_client(server)
            prometheus(server)
            # Many versions, each with a column of its own: the readers meet a checkpoint and files without columns.
            for number in range(25):
                event = json.dumps({"event_type": "evolves", f"column_{number}": number}).encode()
                server.call("POST", "/api/v1/events", event)
                server.call("POST", "/api/v1/system/flush", b"")
            merged(server)
            checkpointed(server)
            expected = {}
            for dataset in ["events", "spans", "logs"]:
                row = server.sql(f"SELECT count(*) AS c, sum(time_ns % 1000) AS s FROM {dataset}")[0]
                expected[dataset] = (row["c"], row["s"])
            server.stop()
            foreign_readers(data, expected)
        finally:
            server.process.kill()
    print("5 passed, 0 failed")


main()
