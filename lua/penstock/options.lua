-- The options of the ready policies (lua/penstock/policy/): their constructors, and the checks of single values. All
-- raise messages without position; the constructor gives them its caller's.
local check = require "penstock.check"
local error, getmetatable, ipairs, pcall, type = error, getmetatable, ipairs, pcall, type

local Options = {}
Options.__index = Options

local function fail(self, ...)
  error(("%s: %s"):format(self.call, (...):format(select(2, ...))), 0)
end

Options.fail = fail

-- A value by its key; `default` unless given.
local function value_of(self, key, default)
  local value = self.values[key]
  if value == nil then return default end
  return value
end

Options.get = value_of

-- flag(key, default) -> boolean
function Options:flag(key, default)
  local value = value_of(self, key, default)
  if type(value) ~= "boolean" then fail(self, "%s is true or false", key) end
  return value
end

-- whole(key, least, most, default) -> number
function Options:whole(key, least, most, default)
  local value = value_of(self, key, default)
  if value ~= nil and (type(value) ~= "number" or value % 1 ~= 0 or value < least or value > most) then
    fail(self, "%s is a whole number from %d to %d", key, least, most)
  end
  return value
end

-- choice(key, list, default) -> one of the list
function Options:choice(key, list, default)
  local value = value_of(self, key, default)
  for _, one in ipairs(list) do
    if value == one then return value end
  end
  return fail(self, '%s is "%s"', key, table.concat(list, '" or "'))
end

-- text(key, default) -> string
function Options:text(key, default)
  local value = value_of(self, key, default)
  if value ~= nil and type(value) ~= "string" then fail(self, "%s is a text, not a %s", key, type(value)) end
  return value
end

-- word(key, default) -> what can be a reason or part of a name
function Options:word(key, default)
  local value = value_of(self, key, default)
  if type(value) ~= "string" or value == "" or #value > 31 or value:find "[^%w_.:-]" then
    fail(self, "%s is one word of at most 31 letters, digits, and _ . : -", key)
  end
  return value
end

-- func(key) -> function or nil
function Options:func(key)
  local value = self.values[key]
  if value ~= nil and type(value) ~= "function" then fail(self, "%s is a function, not a %s", key, type(value)) end
  return value
end

-- table(key) -> table or nil
function Options:table(key)
  local value = self.values[key]
  if value ~= nil and type(value) ~= "table" then fail(self, "%s is a table, not a %s", key, type(value)) end
  return value
end

-- list(key) -> list of strings, from one or from a list; nil when not given
function Options:list(key)
  local value = self.values[key]
  if value == nil then return nil end
  if type(value) == "string" then return { value } end
  if type(value) ~= "table" then fail(self, "%s is a list of texts, not a %s", key, type(value)) end
  local n = 0
  for _, text in next, value do
    n = n + 1
    if type(text) ~= "string" then fail(self, "%s is a list of texts", key) end
  end
  for i = 1, n do -- what stands behind a gap would not be seen
    if value[i] == nil then fail(self, "%s is a list of texts without gaps: its item %d is nil", key, i) end
  end
  return value
end

-- destination(key) -> what may be connected to, or nil
function Options:destination(key)
  local value = self.values[key]
  local kind = type(value)
  if value == nil or (kind == "string" and value ~= "") then return value end
  if kind == "table" and next(value) ~= nil then return value end
  return fail(self, '%s is a destination: "host:port", a table with options, or a list of these', key)
end

-- Is this value what ps.deny (or ps.reply) has made?
local function made_by(value, name)
  return type(value) == "table" and getmetatable(value) == name
end

-- make(core) -> module
return function(core)
  local options = { made_by = made_by }

  -- seconds(key, least, default) -> number of seconds
  function Options:seconds(key, least, default)
    local value = value_of(self, key, default)
    if value == nil then return nil end
    local ms = core.time_ms(value)
    if not ms or ms < least * 1000 then
      fail(self, '%s is a time of %s s or more: 5, "200ms", "1m"', key, least)
    end
    return ms / 1000
  end

  -- size(key, least, default) -> number
  function Options:size(key, least, default)
    local value = value_of(self, key, default)
    if value == nil then return nil end
    local n = core.size(value)
    if not n or n < least or n >= 2 ^ 53 then
      fail(self, '%s is a size of %s or more: 4096, "64K", "1M"', key, least)
    end
    return n
  end

  -- sub(key, names) -> the options in a table of options, or nil
  function Options:sub(key, names)
    local value = self.values[key]
    if value == nil then return nil end
    local call = ("%s: %s"):format(self.call, key)
    check.keys(value, call, names, 0)
    return setmetatable({ call = call, values = value }, Options)
  end

  -- constructor(call, names, build): a function of one table with these keys; build(options) makes the policy.
  -- `positions`: values without a key are taken, too.
  function options.constructor(call, names, build, positions)
    return function(values)
      if values == nil then values = {} end
      local named = values
      if positions and type(values) == "table" then
        named = {}
        for key, value in next, values do
          if type(key) ~= "number" then named[key] = value end
        end
      end
      check.keys(named, call, names, 2)
      local ok, policy = pcall(build, setmetatable({ call = call, values = values }, Options))
      if not ok then error(policy, 2) end
      return policy
    end
  end

  local used = {}

  -- shared(policy, name): a name for stores and buckets of a policy that no other policy of this script has.
  function options.shared(self, policy)
    local name = self:word("name", policy)
    local full = ("policy.%s.%s"):format(policy, name)
    if used[full] then
      fail(self, 'two policies are named "%s", and would count together: give one another name, or use one twice', name)
    end
    used[full] = true
    return full
  end

  return options
end
