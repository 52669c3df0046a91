-- One end-to-end case: the penstock processes, sockets and folders of a test, and what every test demands at its end:
-- penstock stops on TERM with status 0, has logged no error, and no sanitizer has reported anything.
--
--   case("half-close from the client lets the reply through", function(t)
--     local server = t:listen()
--     local p = t:penstock { "127.0.0.1:0", server.address }
--     local client, upstream = t:connect(p), server:accept()
local busted = require "busted"
local bulk = require "tests.e2e.support.bulk"
local net = require "tests.e2e.support.net"
local process = require "tests.e2e.support.process"
local service = require "tests.e2e.support.service"
local sys = require "tests.e2e.support.sys"

local binary = os.getenv "PENSTOCK" or error "set PENSTOCK to the binary under test"

local reports = {
  "ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error", "WARNING: ThreadSanitizer",
  "did not close cleanly", "handle left", "handles left", "requirement failed",
}

-- ---- a running penstock ----

local Penstock = setmetatable({}, { __index = process.class })
Penstock.__index = Penstock

-- Waits for a line that matches in its log from byte `from` on. Raises when it does not come.
function Penstock:log(pattern, from)
  local captures = { self:wait_for("err", pattern, from) }
  if captures[1] == nil then error(("no log line matches %q:\n%s"):format(pattern, self.err:sub(-2000)), 2) end
  return unpack(captures)
end

local function parse_access(line)
  local fields = {}
  for key, quoted, bare in line:gmatch '([%w_.-]+)=("?)([^%s"]*)' do
    fields[key] = quoted == "" and bare or line:match(key:gsub("%p", "%%%0") .. '="(.-[^\\])"') or ""
  end
  for _, key in ipairs { "id", "up", "down", "duration_ms", "connect_ms" } do
    fields[key] = tonumber(fields[key]) or fields[key]
  end
  return fields
end

-- All access lines so far, in the order of their ends.
function Penstock:access_lines()
  local list = {}
  for line in self.err:gmatch "[^\n]+" do
    local rest = line:match "^%S+ access (.*)$"
    if rest then list[#list + 1] = parse_access(rest) end
  end
  return list
end

-- The n-th access line, waited for.
function Penstock:access(n)
  n = n or 1
  local found = sys.wait_until(function() return self:access_lines()[n] end)
  return found or error(("no access line %d:\n%s"):format(n, self.err:sub(-2000)), 2)
end

-- Demands how the n-th connection to end ended.
function Penstock:expect_end(want, n)
  local line = self:access(n)
  for key, value in pairs(want) do
    if line[key] ~= value then
      error(("access line %d has %s=%s, not %s"):format(n or 1, key, tostring(line[key]), tostring(value)), 2)
    end
  end
  return line
end

-- Stops it by TERM and demands a clean end.
function Penstock:stop()
  if self.status then return end
  self:signal "TERM"
  self:expect_exit(0, 2)
end

function Penstock:expect_exit(want, level)
  local status = self:wait()
  if not status then
    self:kill()
    error("penstock did not stop", (level or 1) + 1)
  end
  if status ~= want then error(("penstock ended with status %d, not %d"):format(status, want), (level or 1) + 1) end
end

-- ---- the case ----

local Case = {}
Case.__index = Case

local function own(self, thing)
  self.things[#self.things + 1] = thing
  return thing
end

-- Starts penstock with these arguments and does not wait. Options: those of process.start; `under`, the words of a
-- program that becomes it; `binary`, another path of it.
function Case:start(args, options)
  options = options or {}
  local argv = {}
  for _, word in ipairs(options.under or {}) do argv[#argv + 1] = word end
  argv[#argv + 1] = options.binary or binary
  for _, word in ipairs(args) do argv[#argv + 1] = tostring(word) end
  local env = { ASAN_OPTIONS = "quarantine_size_mb=4:" .. (os.getenv "ASAN_OPTIONS" or "") }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local p = process.start(argv, { env = env, descriptors = options.descriptors, stderr = options.stderr })
  self.servers[#self.servers + 1] = p
  return setmetatable(p, Penstock)
end

-- Takes the addresses of the "listening on" lines from `text`.
local function take_addresses(p, text)
  p.addresses, p.ports = {}, {}
  for address in text:gmatch "listening on (%S+) %->" do
    p.addresses[#p.addresses + 1] = address
    p.ports[#p.ports + 1] = tonumber(address:match ":(%d+)$")
  end
  p.address, p.port = p.addresses[1], p.ports[1]
end

-- Starts penstock and waits until it is ready. One worker unless the arguments say otherwise.
function Case:penstock(args, options)
  local with_workers = { "--workers", "1" }
  for _, word in ipairs(args) do with_workers[#with_workers + 1] = word end
  local p = self:start(with_workers, options)
  local ready = p:wait_for("err", "room for %d+ connections")
  if not ready then error("penstock did not start: " .. p.err, 2) end
  take_addresses(p, p.err)
  return p
end

-- Has it upgraded, by USR2 or what `start` does, and waits until the new process is there. Returns that; `p` drains.
function Case:upgrade(p, start)
  local from = #p.err + 1
  if start then start() else p:signal "USR2" end
  local successor = p:succeeded_by(tonumber(p:log("process (%d+) has taken over", from)))
  self.servers[#self.servers + 1] = successor
  successor:log("(room for) %d+ connections", from)
  take_addresses(successor, p.err:sub(from))
  return successor
end

-- The same where the log goes to a file.
function Case:penstock_with_log(path, args, options)
  local p = self:start(args, options)
  local text
  local ready = sys.wait_until(function()
    text = sys.read_file(path)
    return text and text:find "room for" or p.status
  end)
  if not ready or not text:find "room for" then error("penstock did not start: " .. p.err, 2) end
  take_addresses(p, text)
  return p
end

-- Runs penstock to its end, for command lines that are wrong. Returns its status and standard error.
function Case:run(args, options)
  local p = self:start(args, options)
  local status = p:wait() or error("penstock went on running: " .. p.err, 2)
  return status, p.err, p.out
end

-- Runs penstock at a terminal of its own. Options: rows, columns, and those of process.start. What it writes is `out`.
function Case:at_terminal(args, options)
  options = options or {}
  local size = ("stty rows %d cols %d"):format(options.rows or 24, options.columns or 80)
  local words = {}
  for i, word in ipairs { binary, unpack(args) } do words[i] = "'" .. word:gsub("'", "'\\''") .. "'" end
  -- exec: a shell that waits is interrupted by Ctrl-C, too, and its status is not that of penstock.
  local command = size .. " && exec " .. table.concat(words, " ")
  return self:spawn({ "script", "-qec", command, "/dev/null" }, options)
end

-- Another program.
function Case:spawn(argv, options)
  local child = process.start(argv, options)
  self.others[#self.others + 1] = child
  return child
end

function Case:listen(address, options) return own(self, net.listen(address or "127.0.0.1:0", options)) end
function Case:refusing(host) return own(self, net.refusing(host)) end

function Case:service_manager() return own(self, service.manager(self:folder() .. "/notify")) end
function Case:deaf_datagrams() return own(self, net.deaf_datagrams()) end

function Case:blackhole(address)
  local listener = own(self, net.blackhole(address))
  for _, socket in pairs(listener.fillers) do own(self, socket) end
  return listener
end

-- A client: of a penstock (its first address) or of an address.
function Case:connect(to, options)
  return own(self, net.connect(type(to) == "string" and to or to.address, options))
end

function Case:try_connect(to, options)
  local socket, why = net.try_connect(type(to) == "string" and to or to.address, options)
  return socket and own(self, socket), why
end

function Case:accept(listener)
  return own(self, listener:accept())
end

-- A client and the upstream it has reached.
function Case:pair(p, listener, options)
  local client = self:connect(p, options)
  return client, self:accept(listener)
end

-- A client, connected through penstock, that gets `request` to the upstream and `reply` back.
function Case:expect_echo(p, listener)
  local client, upstream = self:pair(p, listener)
  client:send "ping"
  upstream:expect "ping"
  upstream:send "pong"
  client:expect "pong"
  return client, upstream
end

-- A folder of its own, removed at the end.
function Case:folder()
  if not self.path then self.path = sys.make_folder() end
  return self.path
end

-- A file in it. Returns its path.
function Case:file(name, text)
  local path = self:folder() .. "/" .. name
  sys.write_file(path, text)
  return path
end

-- Demands a line of level error in some penstock's log: a Lua pattern. Others are a failure.
function Case:expect_error(pattern) self.expected[pattern] = "missing" end

-- Lets such a line pass, which depends on how fast the machine is.
function Case:allow_error(pattern) self.expected[pattern] = "allowed" end

local function is_expected(self, line)
  local is = false
  for pattern in pairs(self.expected) do
    if line:find(pattern) then
      self.expected[pattern] = "seen"
      is = true
    end
  end
  return is
end

local function check_log(self, p)
  for line in p.err:gmatch "[^\n]+" do
    local is_error = line:find "^%S+ error " or line:find '"level":"error"'
    if is_error and not is_expected(self, line) then error("penstock has logged an error: " .. line, 0) end
    for _, report in ipairs(reports) do
      if line:find(report, 1, true) then error("penstock reports: " .. line, 0) end
    end
  end
end

local function settle(self)
  for _, p in ipairs(self.servers) do
    p:stop()
    check_log(self, p)
  end
  for pattern, state in pairs(self.expected) do
    if state == "missing" then error("penstock has not logged this error: " .. pattern, 0) end
  end
end

local function clean_up(self)
  for _, thing in ipairs(self.things) do thing:close() end
  for _, p in ipairs(self.servers) do p:kill() end
  for _, child in ipairs(self.others) do child:terminate() end
  if self.path then sys.remove_folder(self.path) end
end

local function describe_failure(self, err)
  if type(err) == "table" then err = err.message or err[1] or err end
  local parts = { tostring(err) }
  for i, p in ipairs(self.servers) do
    local log = p.root and "" or p.err:sub(-4000)
    parts[#parts + 1] = ("--- log of penstock %d (status %s):\n%s"):format(i, tostring(p.status), log)
  end
  return table.concat(parts, "\n")
end

-- Defines a test. `run` gets the case.
local function case(name, run)
  busted.it(name, function()
    local self = setmetatable({ things = {}, servers = {}, others = {}, expected = {} }, Case)
    local ok, err = xpcall(function()
      run(self)
      for _, thing in ipairs(self.things) do thing:close() end
      settle(self)
    end, function(e)
      if type(e) == "string" then return debug.traceback(e, 2):gsub("\n%s*%[C%].*", "") end
      return e
    end)
    for _, p in ipairs(self.servers) do if not p.status then p:drain() end end
    local text = not ok and describe_failure(self, err)
    clean_up(self)
    if text then error(text, 0) end
  end)
end

local is_root = io.popen("id -u"):read "*l" == "0"

-- Defines a test that only root can run; it is pending for others.
local function case_as_root(name, run)
  if is_root then return case(name, run) end
  busted.pending(name .. " (not run as root)")
end

-- Defines a test for each mode of the relay. `run` gets the case and the mode.
local function case_in_modes(name, run)
  for _, mode in ipairs { "auto", "copy", "splice" } do
    case(("%s (--mode %s)"):format(name, mode), function(t) run(t, mode) end)
  end
end

return {
  case = case, case_in_modes = case_in_modes, case_as_root = case_as_root, bulk = bulk, net = net, sys = sys,
  process = process,
}
