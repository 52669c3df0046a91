-- Is what a policy file returned a policy? Raises messages for people, without position.
local nearest = require "penstock.nearest"
local error, ipairs, next, tostring, type = error, ipairs, next, tostring, type

local check = {}

local function example(file)
  return ('end %s with  return { connect = function(conn) return "host:port" end }'):format(file)
end

-- policy(value, file) -> value, which the file returned. What is in it is lua/penstock/compose.lua's to check.
function check.policy(value, file)
  if type(value) ~= "table" then
    error(("%s returned %s, but a policy is a table of hooks: %s"):format(file,
      value == nil and "nothing" or "a " .. type(value), example(file)), 0)
  end
  return value
end

-- keys(value, call, names): a table of options with no key but `names`; raises at `level` of the caller.
function check.keys(value, call, names, level)
  if type(value) ~= "table" then
    error(("%s expects a table, got %s"):format(call, value == nil and "nothing" or "a " .. type(value)), level + 1)
  end
  for key in next, value do
    local known = false
    for _, name in ipairs(names) do known = known or key == name end
    if not known then
      local near = nearest(key, names)
      error(("%s has no option %s%s"):format(call,
        type(key) == "string" and ('"%s"'):format(key) or ("[%s]"):format(tostring(key)),
        near and (', did you mean "%s"?'):format(near) or ""), level + 1)
    end
  end
end

return check
