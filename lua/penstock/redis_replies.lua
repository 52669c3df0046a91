-- The order of replies of a Redis connection: those of the server, and those that a filter gives in its place.
--
-- The up filter tells of each command in its order: passed(), answered(text), replaced(text), lost(). The down filter
-- is run(): it relays the server's replies and puts the others where they belong.
local Replies = {}
Replies.__index = Replies

local PENDING_MAX = 1000 -- answers that wait for their turn; the client is not read while there are more
local BULK_MAX = 16384   -- up to that in one piece, larger ones pass in C
local RETRY = 0.02       -- s: between two tries to answer a client that takes nothing

local one_line = { ["+"] = true, ["-"] = true, [":"] = true, ["_"] = true, [","] = true, ["#"] = true, ["("] = true }
local bulk = { ["$"] = true, ["="] = true, ["!"] = true }
local items = { ["*"] = 1, ["~"] = 1, ["%"] = 2, ["|"] = 2, [">"] = 1 }

-- new(ps) -> the replies of one connection
local function new(ps)
  return setmetatable({
    ps = ps, first = 1, last = 0, list = {}, -- { passes =, text =, swallow =, stop = }: after so many passes …
    passes = 0,                              -- replies of the server behind the last in the list
    busy = false,                            -- the down filter is inside of a reply
    over = false,                            -- the down filter has ended
    room = ps.signal(),
  }, Replies)
end

local function append(self, entry)
  entry.passes, self.passes = self.passes, 0
  self.last = self.last + 1
  self.list[self.last] = entry
end

-- The command goes to the server, which answers it.
function Replies:passed() self.passes = self.passes + 1 end

-- The server will answer with what is not for the client, who gets `text`.
function Replies:replaced(text) append(self, { text = text, swallow = true }) end

-- From the next reply on the server's bytes have no order that could be told.
function Replies:lost()
  append(self, { stop = true })
  self.is_lost = true
end

-- The client gets `text` as the answer to this command, once all before it are answered. May wait.
function Replies:answered(conn, text)
  while not self.over and self.last - self.first + 1 >= PENDING_MAX do
    self.room:clear()
    self.room:wait()
  end
  if self.first <= self.last or self.passes > 0 or self.busy then
    append(self, { text = text })
    return
  end
  local ok, why = conn:inject("down", text)
  while not ok and why == "limit" do
    self.ps.sleep(RETRY)
    ok, why = conn:inject("down", text)
  end
end

-- One reply from rd to wr, or to nowhere. Returns its type; nil when there is none, or none that could be understood.
local function relay_reply(self, rd, wr)
  local left, kind = 1, nil
  while left > 0 do
    local line, eol = rd:line(1048576)
    if not line then return nil end
    self.busy = true
    local c = line:sub(1, 1)
    kind = kind or c
    left = left - 1
    if bulk[c] then
      local n = tonumber(line:match "^.(%-?%d+)$")
      if not n then return nil, line .. eol end
      if n < 0 then
        if wr then wr:write(line, eol) end
      elseif n <= BULK_MAX or not wr then
        local body = rd:exactly(n + 2)
        if not body then return nil, line .. eol end
        if wr then wr:write(line, eol, body) end
      else
        wr:write(line, eol)
        wr:pass(rd, n + 2)
      end
    else
      local each = items[c]
      local n = each and tonumber(line:match "^.(%-?%d+)$")
      if not one_line[c] and not n then return nil, line .. eol end
      if n and n > 0 then left = left + n * each end
      if c == "|" then left = left + 1 end -- attributes, and then what has them
      if wr then wr:write(line, eol) end
    end
  end
  return kind
end

-- Gives the client what is due now. False when it is time to stop.
local function settle(self, wr)
  while self.first <= self.last do
    local entry = self.list[self.first]
    if entry.stop then return entry.passes > 0 end
    if entry.passes > 0 or entry.swallow then return true end
    self.list[self.first] = nil
    self.first = self.first + 1
    wr:write(entry.text)
    self.room:set()
  end
  return true
end

-- The reply that comes next is for nobody: its entry, or nil.
local function swallowed(self)
  local entry = self.list[self.first]
  return entry and entry.swallow and entry.passes == 0 and entry or nil
end

-- A reply of the server has been relayed.
local function count(self)
  local entry = self.list[self.first]
  if entry then
    if entry.passes > 0 then entry.passes = entry.passes - 1 end
  elseif self.passes > 0 then
    self.passes = self.passes - 1
  end
end

local function relay_replies(self, rd, wr)
  while settle(self, wr) do
    self.busy = false
    if not rd:peek(1) then return end
    if not settle(self, wr) then return end
    local entry = swallowed(self)
    local is_push = rd:peek(1) == ">"
    local kind, odd = relay_reply(self, rd, (is_push or not entry) and wr or nil)
    if not kind then
      if odd then rd:unread(odd) end
      return
    end
    if entry and kind ~= ">" then
      entry.swallow = nil
    elseif kind ~= ">" then -- a push answers nothing
      count(self)
    end
  end
end

-- The down filter. When it returns, C relays the rest.
function Replies:run(rd, wr)
  relay_replies(self, rd, wr)
  self.over, self.is_lost, self.busy = true, true, false
  self.room:set()
end

return new
