"""The rules of a bottle in mitmproxy.

This addon decides nothing: it asks 'bottle-egress judge', its child, about every tunnel and every
request, and lets a connection go to no address but those of a verdict. Whatever goes wrong here is
a refusal: mitmproxy itself would log an addon's error and forward the request.
"""

import asyncio
import dataclasses
import functools
import json
import os
import re
import signal
import sys

import h11
from mitmproxy import ctx, http, version
from mitmproxy.proxy import commands, events, server
from mitmproxy.proxy.layers.http import HttpStream, SendHttp, _events, _http1

# What is reached into below is that of this version.
VERSION = "11.0.2"

JUDGE = os.environ.get("BOTTLE_JUDGE", "/opt/bottle/bottle-egress")

# How long a verdict may take: a name has 16 s to be resolved.
PATIENCE = 30

# How long bytes of a body wait that may be the beginning of what must not leave, as leaks.rs has it.
HOLD = 0.25

# What the safety of this addon rests on; not for the command line to choose.
OPTIONS = {
    "connection_strategy": "lazy",
    "rawtcp": False,
    "onboarding": False,
    "http2": True,
    "http3": False,
    "websocket": True,
    "validate_inbound_headers": True,
    "stream_large_bodies": "64k",
    "upstream_cert": False,
    "ssl_insecure": False,
    "ignore_hosts": [],
    "allow_hosts": [],
    "tcp_hosts": [],
    "udp_hosts": [],
    "flow_detail": 0,
    "termlog_verbosity": "error",
}

# Headers that concern one hop, beside those that 'Connection' names; the body is framed by
# 'Transfer-Encoding', which mitmproxy keeps.
HOP = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "upgrade"]


def say(text):
    print(f"bottle-mitmproxy: {text}", file=sys.stderr, flush=True)


if version.VERSION != VERSION:
    say(f"mitmproxy is {version.VERSION}, and this addon is for {VERSION}")
    os._exit(1)


# HTTP/1 of a client, looked at before it is parsed, as strict.rs does: what programs read
# differently is refused.

# The longest head, and the most bytes of trailers.
HEAD = 64 << 10
TRAILERS = 16 << 10

# That of strict.rs, which has a status of its own.
TOO_LONG = "the head is longer than 64 KiB"

BLANK = re.compile(rb"\n\r?\n")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
CONTROL_BUT_TAB = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
NUMBER = re.compile(rb"0|[1-9][0-9]{0,17}")
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
TRAILER = re.compile(rb"[^\r\n]*\r\n")
PART_OF_SIZE = re.compile(rb"(?:[0-9A-Fa-f]{1,15}\r?)?\Z")


class Fault(Exception):
    """Why a request is refused, a phrase for a person."""


def look(head):
    """Looks at a whole head, up to its empty line; whether chunks follow."""
    first, *fields = head[:-1].split(b"\n")
    if not all(line.endswith(b"\r") for line in [first, *fields]):
        raise Fault("a line of the head ends with a line feed alone")
    parts = first[:-1].split(b" ")
    if len(parts) != 3:
        raise Fault("the first line is not method, target and version with one space between")
    method, target, spoken = parts
    if not TOKEN.fullmatch(method):
        raise Fault("the method is not one")
    if not target or CONTROL.search(target):
        raise Fault("the target is empty or holds control characters")
    if spoken == b"HTTP/2.0":
        raise Fault("HTTP/2 is spoken within TLS only: use https, or HTTP/1.1")
    if spoken not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Fault("the version is neither HTTP/1.1 nor HTTP/1.0")
    length = chunked = False
    for line in fields[:-1]:
        if line.startswith((b" ", b"\t")):
            raise Fault("a field goes on in the next line")
        name, colon, value = line[:-1].partition(b":")
        if not colon:
            raise Fault("a line of the head is no field")
        if not TOKEN.fullmatch(name):
            raise Fault("the name of a field is not one")
        value = value.strip(b" \t")
        if CONTROL_BUT_TAB.search(value):
            raise Fault("a field holds control characters")
        name = name.lower()
        plain = name.replace(b"_", b"-")
        if plain in (b"content-length", b"transfer-encoding") and plain != name:
            raise Fault("the name of a field of framing is written with '_'")
        if name == b"content-length":
            if length:
                raise Fault("it has two 'Content-Length'")
            if not NUMBER.fullmatch(value):
                raise Fault("'Content-Length' is not one plain number")
            length = True
        elif name == b"transfer-encoding":
            if chunked:
                raise Fault("it has two 'Transfer-Encoding'")
            if value.lower() != b"chunked":
                raise Fault("'Transfer-Encoding' is other than 'chunked'")
            chunked = True
    if length and chunked:
        raise Fault("it has 'Content-Length' and 'Transfer-Encoding'")
    if chunked and spoken == b"HTTP/1.0":
        raise Fault("HTTP/1.0 has no 'Transfer-Encoding'")
    return chunked


class Chunks:
    """Reads a body in chunks: sizes in hex, nothing behind them, whole line ends. Trailers go no
    further."""

    def __init__(self):
        self.held = bytearray()
        # What is left of a chunk, with the line end behind it.
        self.left = 0
        # Of trailers, once they have begun.
        self.trailers = None
        self.ended = False
        self.fault = None

    def __call__(self, buf):
        if self.ended:
            return h11.EndOfMessage()
        if len(buf):
            self.held += buf.maybe_extract_at_most(len(buf))
        try:
            if self.fault:
                raise self.fault
            data, at = self.scan()
        except Fault as fault:
            self.fault = fault
            raise h11.RemoteProtocolError(str(fault)) from None
        del self.held[:at]
        if self.ended:
            buf += self.held
        if data:
            return h11.Data(data=bytes(data))
        return h11.EndOfMessage() if self.ended else None

    def scan(self):
        """The data of what is held, and how much of that has been read."""
        data, at, held = bytearray(), 0, self.held
        while at < len(held) and not self.ended:
            if self.left > 2:
                part = held[at : at + self.left - 2]
                data += part
                at += len(part)
                self.left -= len(part)
            elif self.left:
                if held[at] != b"\n\r"[self.left - 1]:
                    raise Fault("a chunk is malformed")
                at += 1
                self.left -= 1
            elif self.trailers is None:
                size = SIZE.match(held, at)
                if not size:
                    if PART_OF_SIZE.match(held, at):
                        break
                    raise Fault("the line before a chunk is not its size in hex alone")
                at = size.end()
                number = int(size[1], 16)
                if number:
                    self.left = number + 2
                else:
                    self.trailers = 0
            else:
                end = held.find(b"\n", at)
                line = held[at : end + 1 or len(held)]
                if self.trailers + len(line) > TRAILERS:
                    raise Fault("the trailers are longer than 16 KiB")
                if end < 0:
                    break
                if not TRAILER.fullmatch(line):
                    raise Fault("a trailer ends with a line feed alone or holds a carriage return")
                at = end + 1
                self.trailers += len(line)
                self.ended = line == b"\r\n"
        return data, at

    def read_eof(self):
        raise h11.RemoteProtocolError("the body ended before its end")


def looked_at(read):
    """Looks at a head before it is read, and at what is there of a body in chunks."""

    @functools.wraps(read)
    def patched(self, event):
        if not isinstance(event, events.DataReceived):
            yield from read(self, event)
            return
        data = bytes(self.buf)
        # Some old clients send empty lines behind a body.
        empty = 0
        while data.startswith(b"\r\n", empty):
            empty += 2
        self.buf.maybe_extract_at_most(empty)
        data = data[empty:]
        try:
            blank = BLANK.search(data)
            if (blank.end() if blank else len(data)) > HEAD:
                raise Fault(TOO_LONG)
            if not blank:
                if data.startswith(b"\n"):
                    raise Fault("a line of the head ends with a line feed alone")
                return
            if look(data[: blank.end()]):
                begun, chunks = _http1.ReceiveBuffer(), Chunks()
                begun += data[blank.end() :]
                try:
                    while chunks(begun) and not chunks.ended:
                        pass
                except h11.RemoteProtocolError as error:
                    raise Fault(str(error)) from None
        except Fault as fault:
            self.buf.maybe_extract_at_most(len(self.buf))
            # A request that stands for it, for somebody has to answer.
            self.request = _http1.http1.read_request_head(
                [b"GET http://malformed.invalid/ HTTP/1.1", b"connection: close"]
            )
            self.request.fault = str(fault)
            headers = _http1.RequestHeaders(self.stream_id, self.request, True)
            yield _http1.ReceiveHttp(headers)
            self.body_reader = _http1.make_body_reader(0)
            self.state = self.read_body
            yield from self.state(event)
            return
        yield from read(self, event)

    return patched


def in_chunks(read):
    """Reads a body in chunks by ours."""

    @functools.wraps(read)
    def patched(self, event):
        if isinstance(self.body_reader, _http1.ChunkedReader):
            self.body_reader = Chunks()
        yield from read(self, event)

    return patched


class Untrailed:
    """Reads a server's body in chunks without its trailers, at which mitmproxy gives up."""

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, buf):
        event = self.reader(buf)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event

    def read_eof(self):
        return self.reader.read_eof()


def untrailed(read):
    """Reads a server's body in chunks by that."""

    @functools.wraps(read)
    def patched(self, event):
        if isinstance(self.body_reader, _http1.ChunkedReader):
            self.body_reader = Untrailed(self.body_reader)
        yield from read(self, event)

    return patched


# Places where mitmproxy has no hook.


def framed(send):
    """Frames a body that came by HTTP/2 without a length, which mitmproxy sends bare."""

    @functools.wraps(send)
    def patched(self, event):
        if isinstance(event, _http1.RequestHeaders) and not event.end_stream:
            headers = event.request.headers
            if "content-length" not in headers and "transfer-encoding" not in headers:
                headers["transfer-encoding"] = "chunked"
        return send(self, event)

    return patched


def remembered(begin):
    """Keeps what the request said of its destination, which mitmproxy writes over in a tunnel."""

    @functools.wraps(begin)
    def patched(self, event):
        if request := getattr(event, "request", None):
            request.said = (chars(request.data.scheme), chars(request.data.authority))
            if request.is_http2 and event.end_stream:
                if request.headers.get("content-length", "0") != "0":
                    request.fault = "it has 'Content-Length' and no body"
        return begin(self, event)

    return patched


def refused_at_once(start):
    """Answers before an upload that is refused; what comes of it is thrown away as it comes."""

    @functools.wraps(start)
    def patched(self):
        if self.flow.response is None:
            yield from start(self)
        else:
            self.client_state = self.state_done
            yield from self.send_response()

    return patched


class Body:
    """A body that is asked about, part by part."""

    def __init__(self, number):
        # Of the verdict that allowed its request.
        self.number = number
        # The part that is asked about, whether it is the last, and whether it is what has waited.
        self.data, self.end, self.long = b"", False, False
        # The trailers that are, in its place.
        self.trailers = None
        # What may be sent on, where that is known; else the answer to give instead.
        self.passed, self.refusal = None, None
        # What waits for more, and until when.
        self.held, self.wakeup = b"", None
        # What takes the place of all of it.
        self.instead = None


@dataclasses.dataclass
class BottleBodyHook(commands.StartHook):
    """A part of a request waits for its verdict."""

    body: Body


@dataclasses.dataclass
class BottleBackHook(commands.StartHook):
    """A part of an answer waits to be masked."""

    body: Body


@dataclasses.dataclass
class BottleTrailersHook(commands.StartHook):
    """Trailers of an answer wait to be masked."""

    body: Body


def asked_about(stream):
    """Sends on what verdicts let go of a request's body."""

    @functools.wraps(stream)
    def patched(self, event):
        body = self.flow.metadata.get("bottle_body")
        if body is None:
            yield from stream(self, event)
            return
        if isinstance(event, _events.RequestTrailers):
            body.trailers = event.trailers
            if (yield from passed_on(self, body)):
                yield from stream(self, event)
            return
        body.end = not isinstance(event, _events.RequestData)
        body.data, body.long = b"" if body.end else event.data, False
        count(self.flow, "bottle_sent", body.data)
        if (yield from passed_on(self, body)):
            if body.end:
                yield from stream(self, event)
            elif body.held:
                body.wakeup = commands.RequestWakeup(HOLD)
                yield body.wakeup

    return patched


def let_go(handle):
    """Sends on what has waited for long enough."""

    @functools.wraps(handle)
    def patched(self, event):
        if not isinstance(event, events.Wakeup):
            yield from handle(self, event)
            return
        body = self.flow.metadata.get("bottle_body")
        if body and body.wakeup is event.command and self.client_state == self.state_stream_request_body:
            body.data, body.end, body.long = b"", False, True
            yield from passed_on(self, body)

    return patched


def passed_on(self, body):
    """Sends on what the verdict lets go; whether there is more to come."""
    body.passed = body.wakeup = None
    yield BottleBodyHook(body)
    if body.passed is None:
        yield from broken_off(self, body)
        return False
    if body.passed:
        data = _events.RequestData(self.stream_id, body.passed)
        yield SendHttp(data, self.context.server)
    return True


def broken_off(self, body):
    """Ends a request of which the rest must not leave."""
    why = _events.RequestProtocolError(self.stream_id, "the rest must not leave")
    yield SendHttp(why, self.context.server)
    if self.flow.response is None and body.refusal:
        refuse(self.flow, *body.refusal)
        self.client_state = self.state_done
        yield from self.send_response()
    else:
        self.flow.kill()
        yield from self.check_killed(True)


def masked(stream):
    """Sends back what is left of an answer when a credential in it is masked."""

    @functools.wraps(stream)
    def patched(self, event):
        body = self.flow.metadata.get("bottle_back")
        if body is None:
            yield from stream(self, event)
            return
        body.passed = None
        body.end = isinstance(event, _events.ResponseEndOfMessage)
        if isinstance(event, _events.ResponseData):
            count(self.flow, "bottle_received", event.data)
        if body.instead is not None:
            body.passed = body.instead if body.end else b""
        elif isinstance(event, _events.ResponseTrailers):
            body.data = event.trailers
            yield BottleTrailersHook(body)
        else:
            body.data = b"" if body.end else event.data
            yield BottleBackHook(body)
        if body.passed is None:
            yield commands.CloseConnection(self.context.server)
            self.flow.kill()
            yield from self.check_killed(True)
        elif isinstance(event, _events.ResponseTrailers):
            if body.instead is None:
                yield from stream(self, event)
        else:
            if body.passed:
                data = _events.ResponseData(self.stream_id, body.passed)
                yield SendHttp(data, self.context.client)
            if body.end:
                yield from stream(self, event)

    return patched


def in_step(drain):
    """Reads on when what was read is decided, for what waits would wait in memory."""

    @functools.wraps(drain)
    async def patched(self):
        while self.hook_tasks:
            await asyncio.wait(set(self.hook_tasks))
        await drain(self)

    return patched


_http1.Http1Server.read_headers = looked_at(_http1.Http1Server.read_headers)
_http1.Http1Server.read_body = in_chunks(_http1.Http1Server.read_body)
_http1.Http1Client.read_body = untrailed(_http1.Http1Client.read_body)
_http1.Http1Client.send = framed(_http1.Http1Client.send)
HttpStream.state_wait_for_request_headers = remembered(HttpStream.state_wait_for_request_headers)
HttpStream.start_request_stream = refused_at_once(HttpStream.start_request_stream)
HttpStream.state_stream_request_body = asked_about(HttpStream.state_stream_request_body)
HttpStream.state_stream_response_body = masked(HttpStream.state_stream_response_body)
HttpStream._handle_event = let_go(HttpStream._handle_event)
server.ConnectionHandler.drain_writers = in_step(server.ConnectionHandler.drain_writers)


class Judge:
    """The child that decides; started again when it ends, and meanwhile nothing is allowed."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.child = None
        self.waiting = {}
        self.last = 0
        self.done = False

    async def start(self):
        self.child = await asyncio.create_subprocess_exec(
            JUDGE,
            "judge",
            *self.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=4 << 20,
        )
        self.reader = asyncio.create_task(self.read(self.child))

    async def ready(self):
        await self.answer(0, {"ask": "ready"})

    async def read(self, child):
        try:
            while line := await child.stdout.readline():
                verdict = json.loads(line)
                if size := verdict.get("size"):
                    verdict["data"] = await child.stdout.readexactly(size)
                future = self.waiting.get(verdict["id"])
                if future and not future.done():
                    future.set_result(verdict)
        except Exception as error:
            say(f"read a verdict: {error}")
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the judge has ended"))
        self.child = None
        if child.returncode is None:
            try:
                child.kill()
            except ProcessLookupError:
                pass
        await child.wait()
        if not self.done:
            self.again = asyncio.create_task(self.restart())

    async def restart(self):
        await asyncio.sleep(0.1)
        say("the judge has ended: starting it again, nothing is allowed until then")
        try:
            await self.start()
            await self.ready()
        except Exception as error:
            say(f"start the judge: {error}")

    def tell(self, message, data=b""):
        if self.child is None:
            raise ConnectionError("there is no judge")
        self.child.stdin.write(json.dumps(message).encode() + b"\n" + data)

    async def answer(self, number, question, data=b""):
        future = asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        try:
            self.tell(question, data)
            return await asyncio.wait_for(future, PATIENCE)
        finally:
            del self.waiting[number]

    async def ask(self, question, data=b""):
        self.last += 1
        return await self.answer(self.last, {**question, "id": self.last}, data)

    async def ask_about(self, kind, body):
        """The verdict on a part of a body."""
        question = {"ask": kind, "of": body.number, "size": len(body.data), "end": body.end}
        if kind == "body":
            question["long"] = body.long
        return await self.ask(question, body.data)

    def hang_up(self):
        if self.child is not None:
            self.child.send_signal(signal.SIGHUP)

    async def end(self):
        self.done = True
        if child := self.child:
            child.stdin.close()
            await asyncio.wait_for(child.wait(), 2)


class Client:
    """What is known of one connection of a client."""

    def __init__(self):
        # Host and port of its CONNECT, as the verdict named them; the verdict, until a request comes.
        self.tunnel = None
        self.unused = None
        # The addresses that connections for a host and port may go to, and how many are open.
        self.allowed = {}
        self.open = {}


def chars(data):
    return data.decode("latin-1")


def lines(headers):
    return [[chars(name), chars(value)] for name, value in headers.fields]


def refuse(flow, status, headers, body):
    """Answers in place of the server."""
    flow.request.stream = True
    flow.request.headers.pop("expect", None)
    flow.response = http.Response.make(status, body, headers)


# The answer where there is no verdict.
UNJUDGED = (
    503,
    {"content-type": "text/plain; charset=utf-8", "x-bottle-error": "judge"},
    "bottle-egress cannot judge this request now, so it is refused\n",
)


def refusal(verdict):
    """The answer that a verdict gives in place of the server's, where it does."""
    if no := verdict.get("refuse"):
        return no["status"], dict(no["headers"]), no["body"]
    return None


def change(headers, changes):
    for name in changes["remove"]:
        headers.pop(name, None)
    added = tuple((name.encode(), value.encode("latin-1")) for name, value in changes["set"])
    headers.fields = added + headers.fields


def closed(hook):
    """A hook of a flow that fails closed."""

    @functools.wraps(hook)
    async def wrapped(self, flow):
        try:
            await hook(self, flow)
        except asyncio.CancelledError:
            flow.kill()
            raise
        except BaseException as error:
            try:
                say(f"{hook.__name__}: {type(error).__name__}: {error}: the request is refused")
                if flow.response:
                    flow.kill()
                else:
                    refuse(flow, *UNJUDGED)
            except BaseException:
                flow.kill()

    return wrapped


class Bottle:
    """The addon."""

    def __init__(self):
        self.judge = None
        self.clients = {}

    def load(self, loader):
        loader.add_option("bottle_dns", str, "", "Address of the bottle's DNS, ADDR:PORT.")
        loader.add_option("bottle_run", str, "/run/bottle", "Folder for what is told.")
        loader.add_option("bottle_secrets", str, "/etc/bottle-secrets", "Folder of secrets.")
        loader.add_option("bottle_resolver", str, "", "Name server to ask, ADDR:PORT.")

    def configure(self, updated):
        wrong = {name: value for name, value in OPTIONS.items() if getattr(ctx.options, name) != value}
        if wrong:
            ctx.options.update(**wrong)

    async def running(self):
        arguments = ["--conf", ctx.options.confdir, "--run", ctx.options.bottle_run]
        arguments += ["--secrets", ctx.options.bottle_secrets]
        if ctx.options.bottle_dns:
            arguments += ["--dns", ctx.options.bottle_dns]
        if ctx.options.bottle_resolver:
            arguments += ["--resolver", ctx.options.bottle_resolver]
        try:
            self.judge = Judge(arguments)
            # Without a handler the first process of a container takes no signal at all.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.judge.hang_up)
            await self.judge.start()
            # mitmproxy is started with --no-server: without this addon nobody is served.
            ctx.options.update(server=True)
            server = ctx.master.addons.get("proxyserver")
            if not await server.setup_servers() or not server.listen_addrs():
                raise RuntimeError("the proxy does not listen")
            await self.judge.ready()
        except BaseException as error:
            say(f"start: {error}")
            os._exit(1)

    async def done(self):
        if self.judge:
            await self.judge.end()

    def client(self, connection):
        return self.clients.setdefault(connection.id, Client())

    def client_disconnected(self, connection):
        client = self.clients.pop(connection.id, None)
        if client and client.unused:
            self.judge.tell(ended(client.unused, None, {}))

    @closed
    async def http_connect(self, flow):
        client = self.client(flow.client_conn)
        if client.tunnel:
            return refuse(flow, 400, {}, "a CONNECT inside a tunnel\n")
        verdict = await self.judge.ask(
            {
                "ask": "connect",
                "client": flow.client_conn.peername[0],
                "authority": chars(flow.request.data.authority),
                "headers": lines(flow.request.headers),
            }
        )
        if no := refusal(verdict):
            return refuse(flow, *no)
        tunnel = verdict["tunnel"]
        client.unused = verdict["id"]
        client.tunnel = (tunnel["host"].strip("[]"), tunnel["port"])
        flow.request.data.host, flow.request.data.port = client.tunnel

    @closed
    async def requestheaders(self, flow):
        request, client = flow.request, self.client(flow.client_conn)
        question = {
            "ask": "request",
            "client": flow.client_conn.peername[0],
            "method": chars(request.data.method),
            "path": chars(request.data.path),
            "headers": lines(request.headers),
        }
        question["scheme"], question["authority"] = request.said
        if client.unused:
            self.judge.tell({"ask": "used", "of": client.unused})
            client.unused = None
        if client.tunnel:
            host, port = client.tunnel
            question["tunnel"] = {
                "host": bracketed(host),
                "port": port,
                "tls": bool(flow.client_conn.tls),
                "server_name": flow.client_conn.sni,
            }
        if fault := getattr(request, "fault", None):
            names = ("client", "tunnel")
            question = {name: question[name] for name in names if name in question}
            verdict = await self.judge.ask({**question, "ask": "malformed", "why": fault})
            return refuse(flow, *refusal(verdict))
        # A connection that another request of this client opened meanwhile has to be allowed too.
        place, dialled = None, []
        for _ in range(4):
            verdict = await self.judge.ask({**question, "dialled": dialled})
            if no := refusal(verdict):
                return refuse(flow, *no)
            allow = verdict["allow"]
            place = (allow["host"].strip("[]"), allow["port"])
            now = client.allowed.setdefault(place, allow["addresses"])
            if before := flow.metadata.get("bottle"):
                self.judge.tell({"ask": "used", "of": before})
            flow.metadata["bottle"] = verdict["id"]
            if now == allow["addresses"]:
                break
            dialled = now
        else:
            raise RuntimeError("the addresses change too fast")
        change(request.headers, allow["headers"])
        request.data.host, request.data.port = place
        request.data.path = allow["path"].encode()
        request.data.authority = b""
        if request.is_http2:
            request.data.authority = request.headers.pop("host").encode()
        elif "content-length" not in request.headers and "transfer-encoding" not in request.headers:
            request.headers.pop("expect", None)
        request.stream = counted(flow, "bottle_sent")
        if allow["scan"]:
            flow.metadata["bottle_body"] = Body(verdict["id"])
            request.stream = True
        if allow["mask"]:
            flow.metadata["bottle_back"] = Body(verdict["id"])

    async def bottle_body(self, body):
        try:
            if body.trailers is not None:
                question = {"ask": "trailers", "of": body.number, "headers": lines(body.trailers)}
                body.trailers, body.refusal = None, refusal(await self.judge.ask(question))
                body.passed = None if body.refusal else b""
                return
            verdict = await self.judge.ask_about("body", body)
            if no := refusal(verdict):
                body.refusal = no
                return
            data = body.held + body.data
            sent = max(len(data) - verdict["hold"], 0)
            body.held, body.passed = data[sent:], data[:sent]
        except Exception as error:
            say(f"a body: {type(error).__name__}: {error}: the request is refused")
            body.refusal = UNJUDGED

    async def bottle_back(self, body):
        try:
            verdict = await self.judge.ask_about("back", body)
            body.passed = verdict.get("data", b"") if "size" in verdict else None
        except Exception as error:
            say(f"an answer: {type(error).__name__}: {error}: it is broken off")

    async def bottle_trailers(self, body):
        try:
            question = {"ask": "answer", "of": body.number, "headers": lines(body.data)}
            verdict = await self.judge.ask(question)
            change(body.data, verdict["answer"])
            body.passed = True
        except Exception as error:
            say(f"trailers: {type(error).__name__}: {error}: the answer is broken off")

    @closed
    async def request(self, flow):
        """Again, at the end of the request: one that no verdict allowed goes no further."""
        if flow.response is None and "bottle" not in flow.metadata:
            raise PermissionError("no verdict allows it")

    @closed
    async def responseheaders(self, flow):
        response = flow.response
        response.stream = response.status_code != 101 and counted(flow, "bottle_received")
        if response.stream:
            named = response.headers.get_all("connection")
            named = [name.strip().lower() for value in named for name in value.split(",")]
            for name in {*named, *HOP, "connection"} - {"transfer-encoding", "content-length"}:
                response.headers.pop(name, None)
        if body := flow.metadata.get("bottle_back"):
            question = {"ask": "answer", "of": body.number, "headers": lines(response.headers)}
            verdict = await self.judge.ask(question)
            response.stream = True
            if no := refusal(verdict):
                status, headers, text = no
                flow.response = http.Response.make(status, text, headers)
                flow.response.stream, body.instead = True, text.encode()
            else:
                change(response.headers, verdict["answer"])

    def end(self, flow):
        if number := flow.metadata.pop("bottle", None):
            status = flow.response.status_code if flow.response else None
            self.judge.tell(ended(number, status, flow.metadata))

    async def response(self, flow):
        body = flow.metadata.get("bottle_back")
        if body and body.instead is not None:
            flow.response.data.content = body.instead
        self.end(flow)

    async def error(self, flow):
        self.end(flow)

    async def server_connect(self, data):
        """The only way to an address: one that a verdict allows this client."""
        try:
            place = data.server.address
            addresses = self.clients[data.client.id].allowed[place]
            data.server.address = (addresses[0], place[1])
            # Those that are told of it want to know for whom it is.
            data.server.bottle = place
        except BaseException as error:
            data.server.error = f"no verdict allows it: {error!r}"

    async def server_connected(self, data):
        client, place = self.clients.get(data.client.id), data.server.bottle
        if client:
            client.open[place] = client.open.get(place, 0) + 1
        # By its address mitmproxy knows a connection again, and verifies the certificate.
        object.__setattr__(data.server, "address", place)

    async def server_connect_error(self, data):
        client, place = self.clients.get(data.client.id), getattr(data.server, "bottle", None)
        if client and place and not client.open.get(place):
            addresses = client.allowed.pop(place, [])[1:]
            if addresses:
                client.allowed[place] = addresses

    async def server_disconnected(self, data):
        client, place = self.clients.get(data.client.id), data.server.bottle
        if client:
            client.open[place] -= 1
            if not client.open[place]:
                del client.open[place]
                client.allowed.pop(place, None)

    # What is not HTTP has no rule.
    async def tcp_start(self, flow):
        flow.kill()

    async def udp_start(self, flow):
        flow.kill()

    async def dns_request(self, flow):
        flow.kill()


def ended(number, status, counts):
    sent, received = counts.get("bottle_sent", 0), counts.get("bottle_received", 0)
    return {"ask": "end", "of": number, "status": status, "sent": sent, "received": received}


def count(flow, name, data):
    flow.metadata[name] = flow.metadata.get(name, 0) + len(data)


def counted(flow, name):
    """A stream that passes all and counts it."""

    def passed(data):
        count(flow, name, data)
        return data

    return passed


def bracketed(host):
    return f"[{host}]" if ":" in host else host


addons = [Bottle()]
