"""Counters, spans and log lines behind one small surface; OpenTelemetry when an exporter is configured."""
from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
"""Histogram bounds: from one look-up to a slow boot."""


class Telemetry:
    """What is counted and traced. One per process; the registry is its own, so tests do not mix."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._tracer = trace.get_tracer(service)
        self.log: structlog.stdlib.BoundLogger = structlog.get_logger(service)
        self._commands = self._counter("ussycode_commands", "commands by outcome", "command", "via", "code")
        self._command_seconds = self._histogram("ussycode_command_seconds", "command duration", "command")
        self._decisions = self._counter("ussycode_decisions", "access decisions", "action", "reply", "reason")
        self._tokens = self._counter("ussycode_tokens", "tokens shown, by result", "result")
        self._sign_ins = self._counter("ussycode_sign_ins", "attempts to sign a browser in", "how", "result")
        self._events = self._counter("ussycode_events", "events by kind", "kind")
        self._vms = Gauge("ussycode_vms", "VMs by phase", ["phase"], registry=self.registry)
        self._steps = self._histogram("ussycode_lifecycle_seconds", "lifecycle steps", "step", "result")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)

    @contextmanager
    def span(self, name: str, **attributes: str | int | float | bool) -> Iterator[trace.Span]:
        """A span around a block; an exception marks it as failed."""
        with self._tracer.start_as_current_span(name, attributes=attributes) as span:
            yield span

    def command(self, name: str, via: str, code: str, seconds: float) -> None:
        """Count one command with its outcome (`ok` or an error code) and duration in seconds."""
        self._commands.labels(name, via, code).inc()
        self._command_seconds.labels(name).observe(seconds)

    def decision(self, action: str, reply: str, reason: str) -> None:
        """Count one access decision."""
        self._decisions.labels(action, reply, reason).inc()

    def token(self, result: str) -> None:
        """Count one token shown: `ok`, or the code of its refusal."""
        self._tokens.labels(result).inc()

    def sign_in(self, how: str, result: str) -> None:
        """Count one attempt by link, mail or passkey: `ok`, or a word for why not."""
        self._sign_ins.labels(how, result).inc()

    def event(self, kind: str) -> None:
        """Count one committed event."""
        self._events.labels(kind).inc()

    def step(self, step: str, result: str, seconds: float) -> None:
        """Count one lifecycle step (prepare, start, boot, stop, destroy) with its duration in seconds."""
        self._steps.labels(step, result).observe(seconds)

    def vms(self, phase: str, count: int) -> None:
        """Set how many VMs are in `phase`."""
        self._vms.labels(phase).set(count)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a figure that `read` gives whenever somebody looks."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def metrics(self) -> bytes:
        """Everything counted, in the Prometheus text format."""
        return generate_latest(self.registry)


def log_to_stderr(json_lines: bool) -> None:
    """Structured log lines on stderr: JSON for machines, aligned text for a terminal."""
    dev = structlog.dev.ConsoleRenderer(colors=False)
    renderer = structlog.processors.JSONRenderer() if json_lines else dev
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars, structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def export_otlp(endpoint: str, service: str) -> None:
    """Send spans to the OTLP/HTTP collector at `endpoint`. A dead collector costs only spans.

    Needs the `otlp` extra; raises ImportError without it.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)
