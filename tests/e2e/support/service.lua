-- What a service manager does: it takes the datagrams of sd_notify(3), and hands over listening sockets.
local ffi = require "ffi"
local net = require "tests.e2e.support.net"
local sys = require "tests.e2e.support.sys"

local C = ffi.C
local service = {}

local Manager = {}
Manager.__index = Manager

local text = ffi.new "char[4096]"

-- Takes datagrams at `path`, into self.messages.
function service.manager(path)
  local self = setmetatable({ fd = net.unix_datagrams(path), path = path, messages = {} }, Manager)
  sys.watch(self.fd, function()
    local n = tonumber(C.recv(self.fd, text, 4096, 0))
    if n > 0 then self.messages[#self.messages + 1] = ffi.string(text, n) end
  end)
  return self
end

-- The environment of its services; more may be added.
function Manager:env(more)
  local env = { NOTIFY_SOCKET = self.path }
  for name, value in pairs(more or {}) do env[name] = value end
  return env
end

function Manager:count(pattern)
  local n = 0
  for _, message in ipairs(self.messages) do n = n + (message:find(pattern) and 1 or 0) end
  return n
end

-- Waits for a message that matches, from number `from` on. Returns its number.
function Manager:expect(pattern, from)
  local found = sys.wait_until(function()
    for i = from or 1, #self.messages do
      if self.messages[i]:find(pattern) then return i end
    end
  end)
  return found or error(("no %q came, but:\n%s"):format(pattern, table.concat(self.messages, "\n")), 2)
end

function Manager:close()
  if self.fd < 0 then return end
  sys.unwatch(self.fd)
  C.close(self.fd)
  self.fd = -1
end

-- The words that make a program the owner of `listeners` under `names` ("web:admin"), for the option `under`. `pid`,
-- if it is given, is said to be the process for which they are.
function service.hand_over(listeners, names, pid)
  local moves = {}
  for i, listener in ipairs(listeners) do
    listener:inherit()
    moves[i] = ("%d<&%d"):format(200 + i, listener.fd)
  end
  for i in ipairs(listeners) do moves[#moves + 1] = ("%d<&%d"):format(2 + i, 200 + i) end
  local script = ('exec %s; export LISTEN_PID=%s LISTEN_FDS=%d LISTEN_FDNAMES=%s; exec "$0" "$@"'):format(
    table.concat(moves, " "), pid or "$$", #listeners, names)
  return { "bash", "-c", script }
end

return service
