-- Copies what one side sends to another destination. The copy never slows the original: when its destination does not
-- keep up, it ends.
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.mirror{ up = "10.0.0.9:6379", queue = "1M" }'
local names = { "up", "down", "queue", "timeout", "sample" }

local PART = 65536
local DRAIN = 30 -- s: how long a copy may take to be delivered after the end

local copies = ps.counter("policy_mirror_total", { "end" }, {
  help = "Copies of connections that have ended: whole; behind (too slow), refused or broken, and so cut off.",
})

local Copy = {}
Copy.__index = Copy

-- How it ended, once.
local function over(self, how)
  if self.ended then return end
  self.ended = how
  self.parts, self.bytes = {}, 0
  copies:inc(1, how)
end

-- What the destination answers is for nobody.
local function drain(socket)
  local part, why
  repeat part, why = socket:buffer(PART) until not part and why ~= "timeout"
end

local function write_all(self, socket)
  while true do
    local part = self.parts[self.first]
    if self.ended then return end
    if part then
      self.parts[self.first] = nil
      self.first = self.first + 1
      local size = part:len()
      if not socket:write(part) then return over(self, "broken") end
      self.bytes = self.bytes - size
    elseif self.finished then
      if not ps.timeout(DRAIN, function() return socket:flush() end) then return over(self, "broken") end
      return over(self, "whole")
    else
      self.more:clear()
      self.more:wait()
    end
  end
end

-- The task behind a copy. It belongs to no connection: it may end after the one it copies.
local function deliver(self, destination, timeout)
  local socket = ps.tcp.connect(destination, { timeout = timeout })
  if not socket then return over(self, "refused") end
  local drainer = ps.spawn(drain, socket)
  write_all(self, socket)
  drainer:cancel()
  socket:close()
end

local function new_copy(destination, limit, timeout)
  local self = setmetatable({ parts = {}, first = 1, last = 0, bytes = 0, limit = limit, more = ps.signal() }, Copy)
  ps.after(0, deliver, self, destination, timeout)
  return self
end

-- Queues a part, or gives the copy up.
function Copy:add(part)
  local bytes = self.bytes + part:len()
  if bytes > self.limit then
    over(self, "behind")
  else
    self.bytes, self.last = bytes, self.last + 1
    self.parts[self.last] = part
  end
  self.more:set()
end

function Copy:finish()
  self.finished = true
  self.more:set()
end

return options.constructor(call, names, function(o)
  local destinations = { up = o:destination "up", down = o:destination "down" }
  local limit, timeout = o:size("queue", 65536, 1048576), o:seconds("timeout", 0.001, 5)
  local sample = o:get("sample", 1)
  if type(sample) ~= "number" or not (sample > 0 and sample <= 1) then
    o:fail("sample is the part of the connections that is copied: above 0, at most 1")
  end
  if not destinations.up and not destinations.down then o:fail("there is nothing to copy: give up, down, or both") end
  local running = setmetatable({}, { __mode = "k" }) -- connection -> list of its copies

  local function copy_of(conn, dir)
    local list = running[conn]
    if not list then
      list = { chosen = sample == 1 or ps.random() < sample }
      running[conn] = list
    end
    if not list.chosen then return nil end
    local copy = new_copy(destinations[dir], limit, timeout)
    list[#list + 1] = copy
    return copy
  end

  local function filter(dir)
    return destinations[dir] and function(conn, rd, wr)
      local copy = copy_of(conn, dir)
      while copy and not copy.ended do
        local part = rd:buffer(PART)
        if not part then return copy:finish() end
        copy:add(part)
        wr:write(part)
      end
    end
  end

  return {
    filter = { up = filter "up", down = filter "down" },
    close = function(conn)
      for _, copy in ipairs(running[conn] or {}) do copy:finish() end
    end,
  }
end)
