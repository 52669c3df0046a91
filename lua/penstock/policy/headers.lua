-- Sets, adds and removes header fields of HTTP/1: of the first request and response, or of all of a connection.
local http1 = require "penstock.http1"
local options = require "penstock.options"
local ps = require "penstock"

local call = 'penstock.policy.headers{ set = { ["X-Name"] = "value" }, remove = { "Cookie" }, forwarded = true }'
local names = { "set", "add", "remove", "forwarded", "response", "every", "invalid", "max" }
local response_names = { "set", "add", "remove" }

-- ---- options ----

local function check_field(o, key, name)
  if type(name) ~= "string" or not name:find(http1.TOKEN) then
    o:fail('%s: "%s" is no name of a header field', key, tostring(name))
  end
  local plain = name:lower()
  if plain == "content-length" or plain == "transfer-encoding" then
    o:fail("%s: %s tells where the message ends, and cannot be changed", key, name)
  end
  return plain
end

local function check_value(value)
  return type(value) == "string" and not value:find "[%z\r\n]"
end

-- Appends { name =, plain =, value = } for each field of a table, in the order of the names.
local function fields_of(o, key, list)
  local sorted = {}
  for name in next, o:table(key) or {} do
    check_field(o, key, name)
    sorted[#sorted + 1] = name
  end
  table.sort(sorted)
  for _, name in ipairs(sorted) do
    local value = o.values[key][name]
    if type(value) ~= "function" and not check_value(value) then
      o:fail("%s: the value of %s is one line of text, or a function(conn) that returns one", key, name)
    end
    list[#list + 1] = { name = name, plain = name:lower(), value = value }
  end
end

-- What is to be done to a head: { removed = set, fields = list, forwarded = … }, or nil.
local function changes_of(o, forwarded)
  local changes = { removed = {}, fields = {}, forwarded = forwarded or nil }
  fields_of(o, "set", changes.fields)
  for _, field in ipairs(changes.fields) do changes.removed[field.plain] = true end
  fields_of(o, "add", changes.fields)
  for _, name in ipairs(o:list "remove" or {}) do changes.removed[check_field(o, "remove", name)] = true end
  if forwarded then changes.removed["x-forwarded-for"] = true end
  if not changes.fields[1] and next(changes.removed) == nil then return nil end
  return changes
end

-- ---- heads ----

-- The fields of this name, as one list.
local function values_of(head, name)
  local values = {}
  for i = 1, head.n do
    if head.names[i] == name then values[#values + 1] = head.values[i] end
  end
  return table.concat(values, ", ")
end

local function forwarded_for(conn, head, how)
  local before = how == "append" and values_of(head, "x-forwarded-for") or ""
  local ip = conn.client.ip == "unix" and "unknown" or conn.client.ip
  return before == "" and ip or before .. ", " .. ip
end

-- Writes the head, changed.
local function write_head(conn, wr, head, changes)
  if not changes then return wr:write(http1.raw(head)) end
  local out, removed = { head.first }, changes.removed
  for i = 1, head.n do
    if not removed[head.names[i]] then out[#out + 1] = head.lines[i] end
  end
  if changes.forwarded then out[#out + 1] = "X-Forwarded-For: " .. forwarded_for(conn, head, changes.forwarded) end
  for _, field in ipairs(changes.fields) do
    local value = field.value
    if type(value) == "function" then
      value = value(conn)
      if value ~= nil and not check_value(value) then
        error(("the function for the field %s returned what is not one line of text"):format(field.name), 0)
      end
    end
    if value ~= nil then out[#out + 1] = field.name .. ": " .. value end
  end
  out[#out + 1] = "\r\n"
  wr:write(table.concat(out, "\r\n"))
end

-- ---- the filters ----

local Filter = {}
Filter.__index = Filter

-- What cannot be read as HTTP/1: reset, or the bytes as they came and then all others. Never returns when it resets.
local function give_up(self, rd, why, raw)
  self.over = true
  self.outcome:set()
  if self.passes and raw and raw ~= "" then rd:unread(raw) end
  if why == "eof" or self.passes then return end -- half a head goes nowhere
  self.conn:deny { reason = "bad_http", reset = true }
  ps.sleep(60) -- cancelled: nothing more may pass
end

local function keeper(changes)
  local removed = changes and changes.removed or {}
  return function(name) return not removed[name] end
end

-- A body of that length (a number, "chunked", nil for none).
local function move_body(rd, wr, length, keep)
  if length == "chunked" then return http1.move_chunked(rd, wr, keep) end
  if length and length > 0 then wr:pass(rd, length) end
  return true
end

-- One request. True when others may follow; false when it is over; nil, a word and what was consumed.
local function request(self, rd, wr)
  local head, why, raw = http1.read_head(rd, self.max)
  if not head then return nil, why, raw end
  local method, length = http1.method(head), http1.length(head)
  -- A body of CONNECT means nothing, and servers that refuse it read it or not.
  local bad = not method or length == false or (method == "CONNECT" and length ~= nil)
  if bad then return nil, "bad", http1.raw(head) end
  local switches = method == "CONNECT" or http1.has(head, "upgrade")
  self.last = self.last + 1
  self.requests[self.last] = method
  self.outcome:clear()
  write_head(self.conn, wr, head, self.changes)
  if not self.every then return false end
  if method ~= "CONNECT" then
    local ok, failed, left = move_body(rd, wr, length, self.keep)
    if not ok then return nil, failed, left end
  end
  if switches then return self:wait_for_switch() end
  return true
end

-- Has the server taken this request for another protocol? Then it is over.
function Filter:wait_for_switch()
  local mine = self.last
  while self.answered < mine and not self.over do
    self.outcome:wait()
    self.outcome:clear()
  end
  return not (self.switched or (self.over and self.passes))
end

local function up(self, rd, wr)
  local more, why, raw
  repeat more, why, raw = request(self, rd, wr) until not more
  if more == nil then give_up(self, rd, why, raw) end
end

-- Does a response to that method, with that status, have no body?
local function is_empty(method, status)
  return method == "HEAD" or status < 200 or status == 204 or status == 304
end

-- A final response, or one that switches, has come.
local function answer(self, switched)
  if self.answered < self.last then
    self.answered = self.answered + 1
    self.requests[self.answered] = nil
  end
  self.switched = switched
  self.outcome:set()
end

-- One response; as request().
local function response(self, rd, wr)
  local head, why, raw = http1.read_head(rd, self.max)
  if not head then return nil, why, raw end
  local status, length = http1.status(head), http1.length(head)
  if not status or length == false then return nil, "bad", http1.raw(head) end
  local method = self.requests[self.answered + 1]
  local switched = status == 101 or (method == "CONNECT" and status >= 200 and status < 300)
  if status < 200 and status ~= 101 then
    write_head(self.conn, wr, head, nil)
    return true
  end
  write_head(self.conn, wr, head, self.response_changes)
  if switched or not self.every then
    answer(self, switched)
    return false
  end
  local empty = is_empty(method, status)
  if not empty and length == nil then -- up to the end
    self.over = true
    answer(self, false)
    return false
  end
  local ok, failed, left = move_body(rd, wr, not empty and length or nil, self.response_keep)
  if not ok then return nil, failed, left end
  answer(self, false)
  return true
end

local function down(self, rd, wr)
  local more, why, raw
  repeat more, why, raw = response(self, rd, wr) until not more
  if more == nil then give_up(self, rd, why, raw) end
end

local function forwarded_of(o)
  local forwarded = o:get("forwarded", false)
  if forwarded == true then return "append" end
  if forwarded == false or forwarded == "append" or forwarded == "replace" then return forwarded end
  return o:fail('forwarded is true or "append" (behind the addresses there are), or "replace"')
end

return options.constructor(call, names, function(o)
  local every, passes = o:flag("every", false), o:choice("invalid", { "reset", "pass" }, "reset") == "pass"
  local max = o:whole("max", 256, 1048576, 65536)
  local changes = changes_of(o, forwarded_of(o))
  local r = o:sub("response", response_names)
  local response_changes = r and changes_of(r)
  if not changes and not response_changes then o:fail("there is nothing to do: give set, add, remove or forwarded") end
  local keep, response_keep = keeper(changes), keeper(response_changes)
  local of = setmetatable({}, { __mode = "k" })

  local function filter_of(conn)
    local self = of[conn]
    if not self then
      self = setmetatable({
        conn = conn, every = every, passes = passes, max = max, changes = changes, response_changes = response_changes,
        keep = keep, response_keep = response_keep,
        requests = {}, last = 0, answered = 0, -- methods of the requests that are not answered yet
        switched = false, over = false, outcome = ps.signal(),
      }, Filter)
      of[conn] = self
    end
    return self
  end

  local filter = {}
  if changes or every then filter.up = function(conn, rd, wr) return up(filter_of(conn), rd, wr) end end
  if response_changes or every then filter.down = function(conn, rd, wr) return down(filter_of(conn), rd, wr) end end
  return { filter = filter }
end)
