-- What the policies socks and connect share: a proxy that reads its client's request, asks the rules, and gives the way
-- to the relay. How a request looks and how it is answered is theirs.
local destination_rules = require "penstock.destination_rules"
local logins = require "penstock.logins"
local ps = require "penstock"

local proxy_server = {}

local function rules_of(o)
  local allow = o:get "allow"
  if allow == nil then
    o:fail('allow is missing: the destinations that clients may reach, allow = { %s }, or "any" for the open internet',
      destination_rules.EXAMPLES)
  end
  local list = allow == "any" and "any" or o:list "allow"
  if #list == 0 then o:fail('allow names nothing: write allow = { %s }, or "any"', destination_rules.EXAMPLES) end
  local ok, rules = pcall(destination_rules.new, list)
  return ok and rules or o:fail("allow: %s", rules)
end

local function logins_of(o)
  local users = o:get "users"
  if users == nil then return nil end
  local ok, check = pcall(logins.new, users)
  return ok and check or o:fail("%s", check)
end

-- policy(o, protocol) -> policy. `protocol`:
--   read(conn, check) -> host, port; or nil and the decision that ends it. `check` is nil when nobody has to log in.
--   reply(word) -> the bytes that tell a client why it gets no way
--   success: those that tell it that it has one
function proxy_server.policy(o, protocol)
  local find, check = rules_of(o), logins_of(o)
  local mine = setmetatable({}, { __mode = "k" }) -- the connections whose way was chosen here

  return {
    connect = function(conn)
      local host, port = protocol.read(conn, check)
      if not host then return assert(port) end -- nil would mean the listener's own destination
      conn:tag("to", ("%s:%d"):format(host, port))
      local list, why, detail = find(ps, host, port)
      if detail then conn.log.info("refused: %s", detail) end
      if not list then return ps.deny { reason = why, reply = protocol.reply(why) } end
      mine[conn] = true
      return list
    end,
    connected = function(conn)
      if mine[conn] then conn:inject("down", protocol.success) end
    end,
    failed = function(conn, _, err)
      if mine[conn] then return ps.deny { reason = err, reply = protocol.reply(err) } end
    end,
  }
end

return proxy_server
