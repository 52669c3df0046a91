-- The module "penstock". Run once for each VM by core/script/vm.c, which passes the C primitives (lib_core.c) and
-- gets the module and what C must know of it.
local core = ...
local check = require "penstock.check"
-- Policies may change globals.
local error, select, setmetatable, tostring, type = error, select, setmetatable, tostring, type
local concat = table.concat

local ps = { version = core.version, log = core.log }

-- Values that scripts compare or return; they print as their name.
local function named(name)
  return setmetatable({}, { __tostring = function() return name end, __metatable = name })
end

ps.PASS = named "ps.PASS"
ps.CANCELLED = named "ps.CANCELLED"

-- What a C function that waited answers: true and results, or false and what to raise in the caller of ps.*.
local function settle(ok, ...)
  if ok then return ... end
  error((...), 2)
end

local function time_ms(value, call, level)
  local ms, why = core.time_ms(value)
  if not ms then error(call .. ": " .. why, level + 1) end
  return ms
end

-- ps.sleep(seconds): waits that long; also "200ms", "5s", "2m".
function ps.sleep(seconds)
  return settle(core.sleep(time_ms(seconds, "ps.sleep(seconds)", 2)))
end

ps.random = core.random

local deny_meta = { __tostring = function(deny) return "ps.deny(" .. deny.reason .. ")" end, __metatable = "ps.deny" }
local deny_call = "ps.deny{ reason = \"word\", reset = true, hang = seconds, reply = bytes }"
local deny_keys = { "reason", "reset", "hang", "reply" }

-- ps.deny{ reason =, reset =, hang =, reply = }: the decision to turn a client away.
function ps.deny(options)
  if options == nil then options = {} end
  check.keys(options, deny_call, deny_keys, 2)
  local reason = options.reason
  if reason == nil then reason = "" end
  if type(reason) ~= "string" or #reason > 31 or reason:find("[^%w_.:-]") then
    error(deny_call .. ": the reason is one word of at most 31 letters, digits, and _ . : -", 2)
  end
  if options.reset ~= nil and type(options.reset) ~= "boolean" then
    error(deny_call .. ": reset is true or false", 2)
  end
  local hang_ms = options.hang and time_ms(options.hang, deny_call .. ": hang", 2) or 0
  if options.reply ~= nil and type(options.reply) ~= "string" then error(deny_call .. ": the reply is a string", 2) end
  if options.reply and (options.reset or hang_ms > 0) then
    error(deny_call .. ": a reply goes out at once and ends with FIN, so reset and hang do not go with it", 2)
  end
  return setmetatable({
    reason = reason, reset = options.reset or false, hang_ms = hang_ms, reply = options.reply,
  }, deny_meta)
end

local reply_meta = { __tostring = function() return "ps.reply" end, __metatable = "ps.reply" }

-- ps.reply(bytes): the decision to answer the client and end.
function ps.reply(bytes)
  if type(bytes) ~= "string" then error("ps.reply(bytes): a string is expected, got " .. type(bytes), 2) end
  return setmetatable({ bytes = bytes }, reply_meta)
end

local stream_methods = require "penstock.stream"(core)
require "penstock.tasks"(ps, core, time_ms)
require "penstock.tcp"(ps, core, stream_methods, time_ms)
local passing = require "penstock.starttls"(ps, core)
require "penstock.conn"(ps, core, time_ms, require "penstock.tls"(ps, core), passing.hello)
require "penstock.shared"(ps, core, time_ms)
require "penstock.pool"(ps, core, time_ms)
local finish = require "penstock.listen"(ps, core)
package.loaded["penstock.options"] = require "penstock.options"(core) -- for the ready policies
package.loaded["penstock.logins"] = require "penstock.logins"(core.read_private)

-- Lua's own libraries.
string.gsub = require "penstock.gsub"(string.gsub, core.replace, core.check_stack)
_G.coroutine = require "penstock.coroutines"(coroutine, core)
package.loaded.coroutine = coroutine
_G.xpcall = require "penstock.xpcall"(xpcall, core.is_over_budget)
math.randomseed(core.random(2 ^ 31))
if core.now then require "penstock.virtual_time"(os, core.now) end

-- The global `ngx` is there once a policy has required it.
local ngx_module = package.preload["penstock.ngx"]
package.preload["penstock.ngx"] = function(name)
  local ngx = ngx_module(name)(ps, core)
  _G.ngx = ngx
  return ngx
end

-- Nothing may block a worker or share standard output with the access log.
function _G.print(...)
  local n, parts = select("#", ...), { ... }
  for i = 1, n do parts[i] = tostring(parts[i]) end
  core.write(concat(parts, " ", 1, n))
end

package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(core.folder, core.folder, package.path)
if core.unsafe then
  require "penstock.files"(_G, core.note_file)
else
  require "penstock.sandbox"(_G, core)
end

local globals = {}
for name in pairs(_G) do globals[#globals + 1] = name end

return ps, {
  deny_meta = deny_meta, reply_meta = reply_meta, pass = ps.PASS, cancelled = ps.CANCELLED, finish = finish,
  globals = table.concat(globals, " "), replay = passing.replay,
}
