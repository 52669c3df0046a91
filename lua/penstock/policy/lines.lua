-- Rewrites lines: by rules, patterns and texts in their place, or by a function.
local options = require "penstock.options"

local call = 'penstock.policy.lines{ up = { { "secret", "******" } }, down = function(line, conn) … end }'
local names = { "up", "down", "max", "first", "plain" }

local SCAN = 65536

-- A text that string.gsub takes for itself, as a pattern and as a replacement.
local function as_pattern(text) return (text:gsub("%W", "%%%0")) end
local function as_replacement(text) return (text:gsub("%%", "%%%%")) end

-- One rule -> pattern, replacement.
local function parse_rule(o, key, rule, plain)
  if type(rule) ~= "table" or type(rule[1]) ~= "string" or rule[1] == "" then
    o:fail('%s: a rule is { "what", "instead" }', key)
  end
  local what, instead = rule[1], rule[2]
  local kind = type(instead)
  if kind ~= "string" and (plain or (kind ~= "function" and kind ~= "table")) then
    o:fail("%s: what stands instead of %q is a text%s", key, what, plain and "" or ", a table or a function")
  end
  if plain then return as_pattern(what), as_replacement(instead) end
  local ok, why = pcall(string.gsub, "", what, instead)
  if not ok then o:fail("%s: %q: %s", key, what, (tostring(why):gsub("^[^:]*:%d+: ", ""))) end
  return what, instead
end

-- The function(line, conn) that an option means.
local function rewriter(o, key, plain)
  local value = o:get(key)
  if value == nil or type(value) == "function" then return value end
  if type(value) ~= "table" or #value == 0 then
    o:fail('%s is a list of rules, { { "what", "instead" }, … }, or a function(line, conn)', key)
  end
  local rules = type(value[1]) == "string" and { value } or value
  local patterns, by = {}, {}
  for i = 1, #rules do patterns[i], by[i] = parse_rule(o, key, rules[i], plain) end
  return function(line)
    for i = 1, #patterns do line = line:gsub(patterns[i], by[i]) end
    return line
  end
end

-- A line that is too long goes on as it is.
local function pass_line(rd, wr)
  while true do
    local part = rd:buffer(SCAN)
    if not part then return end
    local at = part:find "\n"
    if not at then
      wr:write(part)
    else
      wr:write(part:sub(1, at))
      if at < part:len() then rd:unread(part:sub(at + 1)) end
      return
    end
  end
end

-- One line. False at the end.
local function one_line(conn, rd, wr, rewrite, max)
  local line, eol = rd:line(max)
  if not line then
    if eol ~= "too_long" then return false end
    pass_line(rd, wr)
    return true
  end
  local answer = rewrite(line, conn)
  if answer == nil then
    wr:write(line, eol)
  elseif answer ~= false then
    if type(answer) ~= "string" then
      error("the function for lines returned a " .. type(answer) ..
        "; it returns nothing to leave the line as it is, a text to send instead, or false to drop it", 0)
    end
    wr:write(answer, eol)
  end
  return true
end

return options.constructor(call, names, function(o)
  local plain = o:flag("plain", false)
  local up, down = rewriter(o, "up", plain), rewriter(o, "down", plain)
  local max, first = o:size("max", 1, 65536), o:whole("first", 1, 2 ^ 31)
  if max > 2 ^ 26 then o:fail("max is at most 64M") end
  if not up and not down then o:fail("there is nothing to do: give up, down, or both") end
  local function filter(rewrite)
    return rewrite and function(conn, rd, wr)
      local n = 0
      while n ~= first and one_line(conn, rd, wr, rewrite, max) do n = n + 1 end
    end
  end
  return { filter = { up = filter(up), down = filter(down) } }
end)
