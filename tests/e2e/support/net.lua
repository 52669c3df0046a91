-- Sockets for tests: non-blocking, every wait with a deadline, both ends driven from one thread.
--
-- An address is "127.0.0.1:80", "[::1]:80" or "unix:/path". Reads tell how a stream ended: nil, "eof" or
-- nil, "ECONNRESET" (or another errno's name).
local ffi = require "ffi"
local bit = require "bit"
local sys = require "tests.e2e.support.sys"

local C = ffi.C
local net = {}

local AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
local SOCK_FLAGS = bit.bor(1, 0x800, 0x80000) -- STREAM, NONBLOCK, CLOEXEC
local SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_LINGER = 1, 2, 4, 7, 8, 13
local SO_REUSEPORT, SO_OOBINLINE = 15, 10
local MSG_OOB, MSG_NOSIGNAL = 1, 0x4000

local CHUNK = 256 * 1024
local scratch = ffi.new("uint8_t[?]", CHUNK)

-- ---- addresses ----

local function encode(address)
  local path = address:match "^unix:(.+)$"
  if path then
    local un = ffi.new "struct sockaddr_un"
    un.family = AF_UNIX
    ffi.copy(un.path, path)
    return un, 2 + #path + 1, AF_UNIX
  end
  local host, port = address:match "^%[(.+)%]:(%d+)$"
  local family = AF_INET6
  if not host then
    host, port = address:match "^([%d.]+):(%d+)$"
    family = AF_INET
  end
  assert(host, "not an address: " .. address)
  local sa = ffi.new(family == AF_INET and "struct sockaddr_in" or "struct sockaddr_in6")
  sa.family, sa.port = family, C.htons(tonumber(port))
  assert(C.inet_pton(family, host, sa.addr) == 1, "not an address: " .. address)
  return sa, ffi.sizeof(sa), family
end

local function decode(storage)
  local family = ffi.cast("unsigned short *", storage)[0]
  if family == AF_UNIX then return "unix:" .. ffi.string(ffi.cast("struct sockaddr_un *", storage).path) end
  local text = ffi.new "char[64]"
  local sa = ffi.cast(family == AF_INET and "struct sockaddr_in *" or "struct sockaddr_in6 *", storage)
  C.inet_ntop(family, sa.addr, text, 64)
  local format = family == AF_INET and "%s:%d" or "[%s]:%d"
  return format:format(ffi.string(text), tonumber(C.htons(sa.port)))
end

local function set_int(fd, level, name, value)
  local box = ffi.new("int[1]", value)
  if C.setsockopt(fd, level, name, box, 4) ~= 0 then sys.fail "setsockopt" end
end

local function open_socket(family, options)
  local fd = C.socket(family, SOCK_FLAGS, 0)
  if fd < 0 then sys.fail "socket" end
  if options.rcvbuf then set_int(fd, SOL_SOCKET, SO_RCVBUF, options.rcvbuf) end
  if options.sndbuf then set_int(fd, SOL_SOCKET, SO_SNDBUF, options.sndbuf) end
  return fd
end

-- ---- a stream ----

local Socket = {}
Socket.__index = Socket

local function wrap(fd, address)
  return setmetatable({ fd = fd, address = address, got = 0, sent = 0 }, Socket)
end

-- The two addresses of a socket; nil without.
local function own_address(fd)
  local storage, len = ffi.new "char[128]", ffi.new("unsigned[1]", 128)
  if C.getsockname(fd, storage, len) ~= 0 then sys.fail "getsockname" end
  return decode(storage)
end

local function far_address(fd)
  local storage, len = ffi.new "char[128]", ffi.new("unsigned[1]", 128)
  return C.getpeername(fd, storage, len) == 0 and decode(storage) or nil
end

net.own_address, net.far_address = own_address, far_address

-- True when ready for "r" or "w" before the deadline; `seconds` default to the patience of all tests.
function Socket:ready(what, seconds)
  local entry = { fd = self.fd, events = what == "r" and sys.POLLIN or sys.POLLOUT }
  return sys.poll({ entry }, sys.now() + (seconds or sys.PATIENCE)) > 0
end

function Socket:wait(what, level)
  if not self:ready(what) then
    error(("nothing to %s within %d s (%d bytes received, %d sent)"):format(
      what == "r" and "receive" or "send", sys.PATIENCE, self.got, self.sent), (level or 1) + 1)
  end
end

-- Sends what goes now from memory. Returns a count, 0 when the socket is full, or nil and the errno's name.
function Socket:send_from(memory, n)
  if self.aborted then return nil, self.aborted end
  local put = tonumber(C.send(self.fd, memory, n, MSG_NOSIGNAL))
  if put >= 0 then
    self.sent = self.sent + put
    return put
  end
  local errno = ffi.errno()
  if errno == sys.EAGAIN or errno == sys.EINTR then return 0 end
  if errno == sys.ECONNRESET then self.aborted = "ECONNRESET" end -- told once: recv() will say 0
  return nil, sys.errno_name(errno)
end

-- Sends all of it, or raises.
function Socket:send(text)
  local at = 0
  local memory = ffi.cast("const uint8_t *", text)
  while at < #text do
    local n, why = self:send_from(memory + at, #text - at)
    if not n then error("send: " .. why, 2) end
    at = at + n
    if n == 0 then self:wait("w", 2) end
  end
  return self
end

-- Sends to somebody who may have reset the connection already.
function Socket:offer(text)
  local n, why = self:send_from(ffi.cast("const uint8_t *", text), #text)
  assert(n == #text or why == "ECONNRESET" or why == "EPIPE", why)
  return self
end

-- Sends one byte with the urgent mark behind it.
function Socket:send_urgent(byte)
  if C.send(self.fd, byte, #byte, bit.bor(MSG_OOB, MSG_NOSIGNAL)) ~= #byte then sys.fail("send MSG_OOB", 2) end
  self.sent = self.sent + #byte
  return self
end

-- Receives into the scratch memory what is there. Returns memory and count; nil and "again", "eof" or errno name.
function Socket:receive_now(max)
  local n = tonumber(C.recv(self.fd, scratch, math.min(max or CHUNK, CHUNK), 0))
  if n > 0 then
    self.got = self.got + n
    return scratch, n
  end
  if n == 0 then return nil, self.aborted or "eof" end
  local errno = ffi.errno()
  if errno == sys.EAGAIN or errno == sys.EINTR then return nil, "again" end
  return nil, sys.errno_name(errno)
end

-- Waits for some bytes. Returns a string, or nil and how the stream ended.
function Socket:receive(max)
  while true do
    local memory, n = self:receive_now(max)
    if memory then return ffi.string(memory, n) end
    if n ~= "again" then return nil, n end
    self:wait("r", 2)
  end
end

-- Exactly n bytes, or raises.
function Socket:read(n)
  local parts, left = {}, n
  while left > 0 do
    local part, why = self:receive(left)
    if not part then
      error(("stream ended (%s) after %d of %d bytes: %q"):format(why, n - left, n, table.concat(parts):sub(-200)), 2)
    end
    parts[#parts + 1] = part
    left = left - #part
  end
  return table.concat(parts)
end

-- All until the end: the bytes, and "eof" or "ECONNRESET".
function Socket:read_all()
  local parts = {}
  while true do
    local part, why = self:receive()
    if not part then return table.concat(parts), why end
    parts[#parts + 1] = part
  end
end

-- Demands that these bytes come next.
function Socket:expect(text)
  local got = self:read(#text)
  if got ~= text then error(("expected %q, received %q"):format(text, got), 2) end
  return self
end

local function expect_end(self, want, level)
  local rest, how = self:read_all()
  if rest ~= "" then error(("%d bytes that nobody sent: %q"):format(#rest, rest:sub(1, 200)), level + 1) end
  if how ~= want then error(("the stream ended by %s, not by %s"):format(how, want), level + 1) end
end

-- Demands a clean end (FIN), or an abort (RST), with nothing before it.
function Socket:expect_eof() expect_end(self, "eof", 2) end
function Socket:expect_reset() expect_end(self, "ECONNRESET", 2) end

-- Half-close: no more from us.
function Socket:finish()
  if C.shutdown(self.fd, 1) ~= 0 and not self.aborted then sys.fail("shutdown", 2) end
  return self
end

function Socket:close()
  if self.fd >= 0 then C.close(self.fd) end
  self.fd = -1
end

-- Ends it by RST.
function Socket:reset()
  local at_once = ffi.new("struct linger", 1, 0)
  C.setsockopt(self.fd, SOL_SOCKET, SO_LINGER, at_once, ffi.sizeof(at_once))
  self:close()
end

function Socket:set_receive_buffer(bytes) set_int(self.fd, SOL_SOCKET, SO_RCVBUF, bytes) end
function Socket:take_urgent_inline() set_int(self.fd, SOL_SOCKET, SO_OOBINLINE, 1) end

ffi.cdef "int ioctl(int fd, unsigned long request, ...); int getpid(void);"
local function count(fd, request, what)
  local n = ffi.new "int[1]"
  if C.ioctl(fd, ffi.cast("unsigned long", request), n) ~= 0 then sys.fail(what, 2) end
  return n[0]
end

-- Bytes that the kernel has not sent or not seen acknowledged.
function net.count_unsent(fd) return count(fd, 0x5411, "SIOCOUTQ") end
function Socket:unsent() return net.count_unsent(self.fd) end

-- Bytes that the kernel has received and we have not.
function Socket:unread() return count(self.fd, 0x541B, "FIONREAD") end

-- Waits until all that was sent has reached the other kernel.
function Socket:wait_delivered()
  if not sys.wait_until(function() return self:unsent() == 0 end) then
    error(("%d bytes are not acknowledged"):format(self:unsent()), 2)
  end
end

-- Waits until the connection is gone in both directions, for a socket that has seen its end of stream already.
function Socket:wait_gone()
  if sys.poll({ { fd = self.fd, events = 0 } }, sys.now() + sys.PATIENCE) == 0 then
    error("the connection still exists", 2)
  end
end

-- ---- making them ----

-- Connects. Options: from = "127.0.0.2:0" (source address), rcvbuf, sndbuf. Returns a socket, or nil and the errno's
-- name; with nowait = true the connect may still be under way.
function net.try_connect(address, options)
  options = options or {}
  local sa, len, family = encode(address)
  local fd = open_socket(family, options)
  if options.from then
    local source, source_len = encode(options.from)
    if C.bind(fd, source, source_len) ~= 0 then sys.fail "bind" end
  end
  local socket = wrap(fd, address)
  if C.connect(fd, sa, len) ~= 0 then
    local errno = ffi.errno()
    if errno ~= sys.EINPROGRESS then
      socket:close()
      return nil, sys.errno_name(errno)
    end
    if options.nowait then return socket end
    socket:wait("w", 2)
    local err, err_len = ffi.new "int[1]", ffi.new("unsigned[1]", 4)
    C.getsockopt(fd, SOL_SOCKET, SO_ERROR, err, err_len)
    if err[0] == sys.ECONNRESET then
      socket.aborted = "ECONNRESET" -- it was accepted, and ended before we looked
    elseif err[0] ~= 0 then
      socket:close()
      return nil, sys.errno_name(err[0])
    end
  end
  if family ~= AF_UNIX and not socket.aborted then socket.own = own_address(fd) end
  return socket
end

function net.connect(address, options)
  local socket, why = net.try_connect(address, options)
  if not socket then error(("connect to %s: %s"):format(address, why), 2) end
  return socket
end

local Listener = {}
Listener.__index = Listener

-- Listens. Options: backlog, rcvbuf, sndbuf (inherited by accepted sockets), reuseport.
function net.listen(address, options)
  options = options or {}
  local sa, len, family = encode(address or "127.0.0.1:0")
  local fd = open_socket(family, options)
  if family ~= AF_UNIX then set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) end
  if options.reuseport then set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1) end
  if C.bind(fd, sa, len) ~= 0 then sys.fail("bind " .. address, 2) end
  if not options.bound_only and C.listen(fd, options.backlog or 1024) ~= 0 then sys.fail("listen", 2) end
  local text = family == AF_UNIX and address or own_address(fd)
  return setmetatable({ fd = fd, address = text, port = tonumber(text:match ":(%d+)$") }, Listener)
end

-- The next client, or nil when none came in time. `from` is its address.
function Listener:try_accept(seconds)
  local deadline = sys.now() + seconds
  while true do
    local storage, len = ffi.new "char[128]", ffi.new("unsigned[1]", 128)
    local fd = C.accept4(self.fd, storage, len, bit.bor(0x800, 0x80000))
    if fd >= 0 then
      local socket = wrap(fd, self.address)
      socket.from = len[0] > 2 and decode(storage) or "unix:"
      return socket
    end
    if ffi.errno() ~= sys.EAGAIN then sys.fail "accept" end
    if sys.poll({ { fd = self.fd, events = sys.POLLIN } }, deadline) == 0 then return nil end
  end
end

function Listener:accept()
  return self:try_accept(sys.PATIENCE) or error("nobody connected to " .. self.address, 2)
end

-- Leaves it open to programs that are started from now on.
function Listener:inherit()
  if C.fcntl(self.fd, 2, ffi.cast("int", 0)) ~= 0 then sys.fail "fcntl" end
  return self
end

function Listener:close()
  if self.fd >= 0 then C.close(self.fd) end
  self.fd = -1
end

-- A port that the kernel gives nobody who has not asked for it, for what is closed and opened again: below those that
-- connections of other tests get. Each process begins elsewhere.
local FIRST, PORTS = 10000, 22000
local next_port = C.getpid() * 97 % PORTS

-- An address that refuses connections: bound, so that nobody else gets the port, but not listening.
function net.refusing(host)
  for _ = 1, PORTS do
    next_port = (next_port + 1) % PORTS
    local address = ("%s:%d"):format(host or "127.0.0.1", FIRST + next_port)
    local ok, listener = pcall(net.listen, address, { bound_only = true })
    if ok then return listener end
  end
  error "there is no free port"
end

-- An address that neither accepts nor refuses: a backlog that is full. Returns the listener; the clients that fill it
-- are in `fillers`, and closing it closes them.
function net.blackhole(address)
  local listener = net.listen(address or "127.0.0.1:0", { backlog = 0 })
  listener.fillers = {}
  for i = 1, 8 do -- the kernel takes backlog + 1 and then drops SYNs; more of our own change nothing
    listener.fillers[i] = net.try_connect(listener.address, { nowait = true })
  end
  local first = listener.fillers[1]
  first:wait "w" -- the queue is full once the first one is in it
  return listener
end

-- A UNIX socket at `path` that takes datagrams. Returns its descriptor.
function net.unix_datagrams(path)
  local sa, len = encode("unix:" .. path)
  local fd = C.socket(AF_UNIX, bit.bor(2, 0x80800), 0)
  if fd < 0 then sys.fail "socket" end
  if C.bind(fd, sa, len) ~= 0 then sys.fail "bind" end
  return fd
end

-- A UDP socket that never answers.
function net.deaf_datagrams()
  local sa, len = encode "127.0.0.1:0"
  local fd = C.socket(AF_INET, bit.bor(2, 0x80000), 0)
  if fd < 0 then sys.fail "socket" end
  if C.bind(fd, sa, len) ~= 0 then sys.fail "bind" end
  return setmetatable({ fd = fd, address = own_address(fd) }, Listener)
end

return net
