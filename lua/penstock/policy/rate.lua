-- Limits for each client, over all workers: new connections a second, open ones, bytes a second.
local at_client = require "penstock.at_client"
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.rate{ connections = 5, burst = 20, concurrent = 50, down = "1M" }'
local names = {
  "name", "connections", "burst", "concurrent", "up", "down", "by", "over", "hang", "clients",
}

local function deny_by(over, hang)
  return function(reason)
    return ps.deny { reason = reason, reset = over == "reset", hang = over == "hang" and hang or nil }
  end
end

-- What clients are counted by: a function of the connection.
local function counted_by(o)
  local by = o:get("by", "key")
  if type(by) == "function" then return by end
  o:choice("by", { "key", "ip", "listener" }, "key")
  if by == "listener" then return function(conn) return conn.listener end end
  return function(conn) return conn.client[by] end
end

local function buckets_of(o, shared, key, clients)
  local rate = o:size(key, 1)
  return rate and ps.bucket(shared .. "." .. key, { rate = rate, keys = clients })
end

return options.constructor(call, names, function(o)
  local rate, concurrent = o:get "connections", o:whole("concurrent", 1, 2 ^ 31)
  if rate ~= nil and (type(rate) ~= "number" or not (rate > 0 and rate < 2 ^ 31)) then
    o:fail("connections is how many a second, above 0, such as 5 or 0.1")
  end
  local burst = o:whole("burst", 1, 2 ^ 31, rate and math.max(1, math.ceil(rate)))
  if burst and not rate then o:fail("burst goes with connections = …") end
  local clients = o:whole("clients", 1, 1e9, 100000)
  local shared = options.shared(o, "rate")
  local deny = deny_by(o:choice("over", { "deny", "reset", "hang" }, "deny"), o:seconds("hang", 0, 30))
  local key_of = counted_by(o)
  local starts = rate and ps.bucket(shared .. ".new", { rate = rate, burst = burst, keys = clients })
  local open = concurrent and ps.store(shared .. ".open", { items = clients })
  local up, down = buckets_of(o, shared, "up", clients), buckets_of(o, shared, "down", clients)
  if not (starts or open or up or down) then o:fail("there is no limit: give connections, concurrent, up or down") end
  local over_rate, over_concurrent = deny "rate", deny "concurrent"
  local counted = setmetatable({}, { __mode = "k" }) -- connection -> the key it counts for

  local function leave(conn)
    local key = counted[conn]
    if key == nil then return end
    counted[conn] = nil
    local left = open:incr(key, -1)
    if left and left <= 0 then open:cas(key, left, nil) end -- unless another has come meanwhile
  end

  local policy = {
    accept = at_client.hook(function(conn)
      local key = key_of(conn)
      if key == nil then return end
      if starts and not starts:take(key) then return over_rate end
      if open then
        counted[conn] = key
        local n = open:incr(key, 1, 0)
        if not n then -- a key that cannot be counted, or no memory
          counted[conn] = nil
          return over_concurrent
        end
        if n > concurrent then
          leave(conn)
          return over_concurrent
        end
      end
      if up or down then
        local limits = { up = up and up:key(key), down = down and down:key(key) }
        if (up and not limits.up) or (down and not limits.down) then return over_rate end
        conn:limit(limits)
      end
    end),
  }
  if open then policy.close = leave end
  return policy
end)
