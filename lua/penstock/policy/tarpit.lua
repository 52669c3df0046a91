-- Holds clients: sends them a few bytes now and then, or nothing, instead of turning them away.
local at_client = require "penstock.at_client"
local cidr = require "penstock.cidr"
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.tarpit{ clients = { "203.0.113/24" }, send = "...", every = "10s", hold = "1h" }'
local names = { "name", "clients", "send", "bytes", "every", "hold", "most", "over" }

-- Who is held: a function of the connection.
local function held_clients(o)
  local clients = o:get "clients"
  if type(clients) == "function" then return clients end
  local list = o:list "clients"
  if not list then return function() return true end end
  local ok, lookup = pcall(cidr.new, { { true, list } })
  if not ok then o:fail("clients: %s", lookup) end
  return function(conn) return lookup(conn.client.ip) end
end

-- The text without end, `bytes` at a time: a function that gives the next part.
local function parts_of(text, bytes)
  local endless, at = text:rep(math.ceil(bytes / #text) + 1), 0
  return function()
    local part = endless:sub(at + 1, at + bytes)
    at = (at + bytes) % #text
    return part
  end
end

return options.constructor(call, names, function(o)
  local is_held = held_clients(o)
  local text, bytes = o:text("send", ""), o:whole("bytes", 1, 65536, 1)
  local every, hold = o:seconds("every", 0.001, 10), o:seconds("hold", 0.001, 3600)
  local most = o:whole("most", 1, 2 ^ 31, 1000)
  local over = ps.deny { reason = "tarpit_full", reset = o:choice("over", { "deny", "reset" }, "deny") == "reset" }
  local shared = options.shared(o, "tarpit")
  local held = ps.store(shared, { items = 1 })
  local silent = ps.deny { reason = "tarpit", hang = hold }
  local done = ps.deny { reason = "tarpit" }
  local counted = setmetatable({}, { __mode = "k" })

  local function drip(conn)
    local next_part, ends = parts_of(text, bytes), conn.age + hold
    while conn.age < ends do
      ps.sleep(math.min(every, math.max(0.001, ends - conn.age)))
      if conn.age < ends then conn:inject("down", next_part()) end -- a client that takes nothing is held all the same
    end
    return done
  end

  return {
    accept = at_client.hook(function(conn)
      if not is_held(conn) then return end
      counted[conn] = true
      if held:incr("held", 1, 0) > most then return over end
      return text == "" and silent or drip(conn)
    end),
    close = function(conn)
      if counted[conn] then held:incr("held", -1) end
    end,
  }
end)
