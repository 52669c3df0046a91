-- Lets only some commands of Redis through, or under other names, and answers the others itself.
local commands = require "penstock.redis_commands"
local new_replies = require "penstock.redis_replies"
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.redis{ deny = { "FLUSHALL", "CONFIG" }, rename = { ["GET2"] = "GET" }, read_only = true }'
local names = { "allow", "deny", "rename", "read_only", "message", "over" }

local NAME_MAX = 64      -- a longer name is none that Redis has
local BULK_MAX = 16384   -- up to that in one piece, larger arguments pass in C
local ARGUMENTS_MAX = 1048576

-- ---- options ----

-- "config get" -> "CONFIG|GET"
local function parse_name(o, key, text)
  local name = type(text) == "string" and text:upper():gsub("^(%S+)[ |](%S+)$", "%1|%2")
  if not name or name == "" or name:find "[%s%c]" or #name > NAME_MAX then
    o:fail('%s: "%s" is no command: write "GET", or "CONFIG GET"', key, tostring(text))
  end
  return name
end

-- The commands of a list: as a set, with the names that have parts in `with_parts`.
local function set_of(o, key, with_parts)
  local list = o:list(key)
  if not list then return nil end
  local set = {}
  for _, text in ipairs(list) do
    local name = parse_name(o, key, text)
    set[name] = true
    with_parts[name:match "^(.-)|" or ""] = true
  end
  return set
end

local function renames_of(o)
  local renames = {}
  for from, to in next, o:table "rename" or {} do
    from = parse_name(o, "rename", from)
    if type(to) ~= "string" or to == "" or to:find "[%s%c]" or from:find("|", 1, true) then
      o:fail("rename: what the client says is followed by what the server gets: { [\"GET2\"] = \"GET\" }")
    end
    renames[from] = to
  end
  return renames
end

-- allowed(name, full) -> bool, of "CONFIG" and "CONFIG|GET" (or nil)
local function rules_of(o, with_parts)
  local allow, deny = set_of(o, "allow", with_parts), set_of(o, "deny", with_parts) or {}
  local read_only, renames = o:flag("read_only", false), renames_of(o)
  if read_only then
    for name in next, commands.readers do with_parts[name:match "^(.-)|" or ""] = true end
  end
  if not allow and not read_only and next(deny) == nil and next(renames) == nil then
    o:fail("there is no rule: give allow, deny, rename or read_only")
  end
  local function listed(set, name, full) return set[name] or (full and set[full]) end
  local function allowed(name, full)
    if full and deny[full] then return false end
    if allow and full and allow[full] then return true end -- closer than a rule for the whole command
    if deny[name] then return false end
    if renames[name] or (allow and allow[name]) then return true end
    if read_only then return listed(commands.readers, name, full) end
    return not allow
  end
  return allowed, renames
end

-- ---- reading commands ----

-- The size before an argument, and its line: n, line; nil and a word.
local function read_size(rd)
  local line, eol = rd:line(32)
  if not line then return nil, eol == "eof" and "eof" or "bad" end
  if eol == "" then return nil, "eof" end
  local n = eol == "\r\n" and tonumber(line:match "^%$(%d+)$")
  if not n then return nil, "bad" end
  return n, line
end

-- An argument that has to be known: its bytes; false and its size when it is longer; nil and a word.
local function read_argument(rd, most)
  local n, why = read_size(rd)
  if not n then return nil, why end
  if n > most then return false, n end
  local body = rd:exactly(n + 2)
  if not body then return nil, "eof" end
  if body:sub(-2) ~= "\r\n" then return nil, "bad" end
  return body:sub(1, n)
end

-- n more arguments, to wr or to nowhere: true; nil and a word.
local function move_arguments(rd, wr, n)
  for _ = 1, n do
    local size, line = read_size(rd)
    if not size then return nil, line end
    if size <= BULK_MAX then
      local body = rd:exactly(size + 2)
      if not body then return nil, "eof" end
      if wr then wr:write(line, "\r\n", body) end
    elseif wr then
      wr:write(line, "\r\n")
      wr:pass(rd, size + 2)
    else
      local left = size + 2
      while left > 0 do
        local part = rd:buffer(math.min(left, 65536))
        if not part then return nil, "eof" end
        left = left - part:len()
      end
    end
  end
  return true
end

-- A line that is no array: its words, or nil when it holds what Redis would read otherwise.
local function words_of(line)
  line = line:gsub("\t", " ")
  if line:find "[\"'\\%c]" then return nil end
  local words = {}
  for word in line:gmatch "[^ ]+" do words[#words + 1] = word end
  return words
end

-- ---- the filter ----

local Filter = {}
Filter.__index = Filter

-- The command is not let through.
local function refuse(self, name)
  local shown = name and name:gsub("[^%w_|.-]", "?"):gsub("|", " "):lower() or "?"
  self.denied:inc(1)
  if self.resets or self.replies.is_lost then
    self.conn:deny { reason = "redis_command", reset = true }
    return false
  end
  if self.in_multi then self.dirty = true end
  self.replies:answered(self.conn, ("-%s\r\n"):format((self.message:gsub("%%c", function() return shown end))))
  return true
end

-- What a command means for the order of replies: true, or false when another one is to be sent in its place.
local function track(self, name, full)
  local replies = self.replies
  if not replies then return true end
  if commands.streams[name] or commands.streams[full or ""] then
    if not replies.is_lost then replies:lost() end
    return true
  end
  if name == "EXEC" and self.dirty then
    if replies.is_lost then -- the client would take the answer to DISCARD for that to EXEC
      self.conn:deny { reason = "redis_command", reset = true }
      return ps.sleep(60)
    end
    replies:replaced "-EXECABORT Transaction discarded because of previous errors.\r\n"
    self.in_multi, self.dirty = false, false
    return false
  end
  if name == "MULTI" then self.in_multi = true end
  if name == "EXEC" or name == "DISCARD" or name == "RESET" then self.in_multi, self.dirty = false, false end
  replies:passed()
  return true
end

-- What of a command that is refused the client is told: its part only where that counts, and no more than a name has.
local function shown(self, upper, full)
  return (full and self.with_parts[upper] and full or upper):sub(1, 2 * NAME_MAX + 1)
end

-- The rest of a command whose name is known. `known`: arguments that have been read already, after the name.
local function decide(self, rd, wr, name, known, rest)
  local upper = name:upper()
  local full = known[1] and upper .. "|" .. known[1]:upper()
  if commands.http[upper] then
    self.conn:deny { reason = "redis_http", reset = true }
    return nil, "denied"
  end
  if not self.allowed(upper, full) then
    local ok, why = move_arguments(rd, nil, rest)
    if not ok then return nil, why end
    return refuse(self, shown(self, upper, full)) or nil, "denied"
  end
  local sent = self.renames[upper] or name
  local called = sent:upper()
  if not track(self, called, known[1] and called .. "|" .. known[1]:upper()) then
    wr:write "*1\r\n$7\r\nDISCARD\r\n"
    return move_arguments(rd, nil, rest)
  end
  wr:write("*", 1 + #known + rest, "\r\n$", #sent, "\r\n", sent, "\r\n")
  for i = 1, #known do wr:write("$", #known[i], "\r\n", known[i], "\r\n") end
  return move_arguments(rd, wr, rest)
end

-- What no command of Redis's can be called: its n arguments go nowhere. Redis compares names up to a zero byte, so one
-- that holds more than a word could stand for another.
local function refuse_unread(self, rd, n)
  local ok, why = move_arguments(rd, nil, n)
  if not ok then return nil, why end
  return refuse(self, nil) or nil, "denied"
end

local function array_command(self, rd, wr, line)
  local n = tonumber(line:match "^%*(%-?%d+)$")
  if not n or n > ARGUMENTS_MAX then return nil, "bad" end
  if n <= 0 then return true end -- Redis has no answer to that either
  local name, why = read_argument(rd, NAME_MAX)
  if name == nil then return nil, why end
  if not name then
    rd:unread(("$%d\r\n"):format(why))
    return refuse_unread(self, rd, n)
  end
  local known = {}
  if n > 1 and self.with_parts[name:upper()] then
    local part, size = read_argument(rd, NAME_MAX)
    if part == nil then return nil, size end
    if not part then
      rd:unread(("$%d\r\n"):format(size))
      return refuse_unread(self, rd, n - 1)
    end
    known[1] = part
  end
  if name:find "[%c%z]" or (known[1] and known[1]:find "[%c%z]") then
    return refuse_unread(self, rd, n - 1 - #known)
  end
  return decide(self, rd, wr, name, known, n - 1 - #known)
end

local function inline_command(self, rd, wr, line)
  local words = words_of(line)
  if not words then return refuse(self, "inline") or nil, "denied" end
  if not words[1] then return true end
  return decide(self, rd, wr, table.remove(words, 1), words, 0)
end

local function one_command(self, rd, wr)
  local line, eol = rd:line(65536)
  if not line then return nil, eol == "too_long" and "bad" or "eof" end
  if line:byte() == 42 then
    if eol ~= "\r\n" then return nil, eol == "" and "eof" or "bad" end
    return array_command(self, rd, wr, line)
  end
  if eol == "" then return nil, "eof" end -- Redis does not run it either
  return inline_command(self, rd, wr, line)
end

local function up(self, rd, wr)
  local ok, why
  repeat ok, why = one_command(self, rd, wr) until not ok
  if why == "bad" then self.conn:deny { reason = "redis_protocol", reset = true } end
  if why ~= "eof" then return ps.sleep(60) end -- cancelled: nothing more may pass
  wr:finish() -- what is left is no whole command
end

local function message_of(o)
  local message = o:text("message", "ERR command '%c' is not allowed here")
  if message == "" or message:find "%c" then o:fail("message is one line, in which %%c is the command") end
  return message
end

return options.constructor(call, names, function(o)
  local with_parts = { CLIENT = true }
  local allowed, renames = rules_of(o, with_parts)
  for from, to in next, renames do with_parts[from] = with_parts[from] or with_parts[to:upper()] end
  local message = message_of(o)
  local resets = o:choice("over", { "error", "reset" }, "error") == "reset"
  local denied = ps.counter("policy_redis_denied_total", nil, { help = "Redis commands that were not let through." })
  local of = setmetatable({}, { __mode = "k" }) -- connection -> its filter

  local function filter_of(conn)
    local self = of[conn]
    if not self then
      self = setmetatable({ conn = conn, allowed = allowed, renames = renames, with_parts = with_parts, resets = resets,
        message = message, denied = denied, replies = not resets and new_replies(ps) or nil }, Filter)
      of[conn] = self
    end
    return self
  end

  local filter = { up = function(conn, rd, wr) return up(filter_of(conn), rd, wr) end }
  if not resets then filter.down = function(conn, rd, wr) return filter_of(conn).replies:run(rd, wr) end end
  return { filter = filter }
end)
