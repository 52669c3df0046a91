-- The sockets of another process, as it has set them: duplicates of its descriptors, closed as soon as they are read.
local ffi = require "ffi"
local lfs = require "lfs"
local net = require "tests.e2e.support.net"
local sys = require "tests.e2e.support.sys"

local C = ffi.C
local SYS_PIDFD_GETFD = 438
local SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_ACCEPTCONN = 1, 7, 8, 30
local IPPROTO_TCP, TCP_NODELAY, TCP_INFO = 6, 1, 11
local TCP_INFO_SACKED = 28 -- of a listening socket its backlog

local sockets = {}

local function get_int(fd, level, name)
  local value, len = ffi.new "int[1]", ffi.new("unsigned[1]", 4)
  if C.getsockopt(fd, level, name, value, len) ~= 0 then sys.fail "getsockopt" end
  return value[0]
end

local function backlog_of(fd)
  local info, len = ffi.new "uint8_t[104]", ffi.new("unsigned[1]", 104)
  if C.getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, len) ~= 0 then sys.fail "TCP_INFO" end
  return ffi.cast("uint32_t *", info + TCP_INFO_SACKED)[0]
end

-- The kernel keeps twice the size that was asked for, and tells that.
local function read_options(fd)
  local listens = get_int(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1
  return {
    rcvbuf = get_int(fd, SOL_SOCKET, SO_RCVBUF) / 2,
    sndbuf = get_int(fd, SOL_SOCKET, SO_SNDBUF) / 2,
    nodelay = get_int(fd, IPPROTO_TCP, TCP_NODELAY) == 1,
    backlog = listens and backlog_of(fd) or nil,
    unsent = not listens and net.count_unsent(fd) or nil,
  }
end

-- Nil when it has closed it meanwhile.
local function duplicate(p, n)
  local function long(value) return ffi.cast("long", value) end
  local fd = tonumber(C.syscall(SYS_PIDFD_GETFD, long(p.pidfd), long(n), long(0)))
  if fd >= 0 then return fd end
  if ffi.errno() ~= sys.EBADF then sys.fail "pidfd_getfd" end
end

local function read(fd, from, to)
  local found = net.own_address(fd) == from and net.far_address(fd) == to and read_options(fd)
  C.close(fd)
  return found
end

-- What the kernel has of the TCP socket of process `p` between these addresses (`to` is nil for one that listens): a
-- table of rcvbuf, sndbuf (bytes), nodelay, and its backlog if it listens, else unsent (bytes). Raises without one.
function sockets.find(p, from, to)
  for name in lfs.dir(("/proc/%d/fd"):format(p.pid)) do
    local path = ("/proc/%d/fd/%s"):format(p.pid, name)
    if name:find "^%d" and (lfs.symlinkattributes(path, "target") or ""):find "^socket:" then
      local fd = duplicate(p, tonumber(name))
      local found = fd and read(fd, from, to)
      if found then return found end
    end
  end
  error(("%s has no socket from %s to %s"):format(p.name, from, to or "nowhere"), 2)
end

return sockets
