-- A steady load with both ends in a process of its own, that counts at both: load.py.
local cjson = require "cjson"
local net = require "tests.e2e.support.net"
local sys = require "tests.e2e.support.sys"

local load = {}
load.__index = load

local PATIENCE_S = 120 -- of a whole phase on a slow machine

-- Starts it. Its two servers are addresses[1] and [2].
function load.start(t)
  local child = t:spawn { "python3", "tests/e2e/support/load.py" }
  local control, a, b = child:wait_for("out", "ready (%d+) (%d+) (%d+)\n")
  assert(control, "no load: " .. child.err)
  return setmetatable({
    child = child, control = net.connect("127.0.0.1:" .. control),
    addresses = { "127.0.0.1:" .. a, "127.0.0.1:" .. b },
  }, load)
end

-- One line to it, one line back.
local function ask(self, line)
  self.control:send(line .. "\n")
  local text, deadline = "", sys.now() + PATIENCE_S
  while not text:find "\n" do
    assert(sys.now() < deadline and not self.child.status, "the load does not answer " .. line)
    if self.control:ready "r" then text = text .. assert(self.control:receive()) end
  end
  return (text:match "^(.*)\n")
end

-- Clients of these addresses begin; one with "?" in front may refuse a connection.
function load:go(addresses) ask(self, "go " .. table.concat(addresses, " ")) end

-- Waits until n more connections have been completed, or one was lost.
function load:wait(n) ask(self, "wait " .. n) end

-- Ends it. Returns what both ends have seen.
function load:stop()
  local result = cjson.decode(ask(self, "stop"))
  self.control:close()
  self.child:terminate()
  return result
end

return load
