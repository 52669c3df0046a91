-- How many bytes a connection may carry, and a client in a span of time. C moves the bytes, in portions that are
-- counted before they pass: never more than the quota.
local options = require "penstock.options"
local ps = require "penstock"

local time = os.time
local max, min, floor = math.max, math.min, math.floor

local call = 'penstock.policy.quota{ connection = "100M", client = "1G", window = "1h", over = "reset" }'
local names = { "name", "connection", "client", "window", "count", "over", "rate", "by", "clients" }

local PORTION_MAX = 262144


-- An account: the connection, the bytes that are left of its own, what each direction was granted, and where its last
-- portion is counted.

-- Where the bytes of this client are counted now, or nil.
local function item_of(quota, conn)
  local key = quota.key_of(conn)
  if key == nil then return nil end
  local now = time()
  return ("%d:%s"):format(now - now % quota.window, key)
end

-- Takes up to n bytes of the client's: how many, and where they are counted.
local function take_shared(self, n)
  local quota = self.quota
  local item = quota.client and item_of(quota, self.conn)
  if not item then return n, nil end
  local used = quota.store:incr(item, n, 0, 2 * quota.window)
  if not used then return 0, nil end -- memory is out: fail closed
  local granted = max(0, min(n, quota.client - (used - n)))
  if granted < n then quota.store:incr(item, granted - n) end
  return granted, item
end

-- A portion for a direction: how many bytes may pass, 0 when there are no more.
local function take(self, dir)
  local n = self.quota.portion
  if self.left then n = min(n, self.left) end
  if n == 0 then return 0 end
  local granted, item = take_shared(self, n)
  if self.left then self.left = self.left - granted end
  self.granted[dir], self.item[dir] = self.granted[dir] + granted, item
  return granted
end

-- What this direction was granted and has not used goes back to the client.
local function give_back(self, dir, bytes)
  local unused = self.granted[dir] - bytes
  if unused > 0 and self.item[dir] then self.quota.store:incr(self.item[dir], -unused) end
end

local function over(self, wr)
  local quota = self.quota
  self.conn:tag("quota", "over")
  if quota.rate then
    self.conn:limit { up = quota.rate, down = quota.rate }
    return -- C relays the rest
  end
  wr:flush() -- what was within the quota arrives
  self.conn:deny { reason = "quota", reset = quota.resets }
  ps.sleep(60) -- cancelled: nothing more may pass
end

local function run(self, dir, rd, wr)
  while rd:peek(1) do
    local n = take(self, dir)
    if n == 0 then return over(self, wr) end
    wr:pass(rd, n)
  end
end

local function read_quota(o)
  local connection, client = o:size("connection", 1), o:size("client", 1)
  if not connection and not client then o:fail("there is no quota: give connection, client, or both") end
  local kind, rate = o:choice("over", { "close", "reset", "throttle" }, "close"), o:size("rate", 1)
  if (kind == "throttle") ~= (rate ~= nil) then o:fail('over = "throttle" and rate = "16K" go together') end
  local smaller = min(connection or math.huge, client or math.huge)
  return {
    connection = connection, client = client, window = math.ceil(o:seconds("window", 1, 3600)),
    resets = kind == "reset", rate = rate, key_of = o:func "by" or function(conn) return conn.client.key end,
    portion = max(1, min(PORTION_MAX, floor(smaller / 64))),
    store = client and ps.store(options.shared(o, "quota"), { items = o:whole("clients", 1, 1e9, 100000) }),
  }
end

return options.constructor(call, names, function(o)
  local quota = read_quota(o)
  local count = o:choice("count", { "both", "up", "down" }, "both")
  local accounts = setmetatable({}, { __mode = "k" })

  local function account_of(conn)
    local self = accounts[conn]
    if not self then
      self = { conn = conn, quota = quota, left = quota.connection, granted = { up = 0, down = 0 }, item = {} }
      accounts[conn] = self
    end
    return self
  end

  local function filter(dir)
    if count ~= "both" and count ~= dir then return nil end
    return function(conn, rd, wr) return run(account_of(conn), dir, rd, wr) end
  end

  local policy = { filter = { up = filter "up", down = filter "down" } }
  if not quota.client then return policy end
  local exhausted = ps.deny { reason = "quota", reset = quota.resets }

  function policy.accept(conn)
    local item = not quota.rate and item_of(quota, conn)
    if item and (quota.store:get(item) or 0) >= quota.client then return exhausted end
  end

  function policy.close(conn, info)
    local self = accounts[conn]
    if not self then return end
    give_back(self, "up", info.bytes_up)
    give_back(self, "down", info.bytes_down)
  end

  return policy
end)
