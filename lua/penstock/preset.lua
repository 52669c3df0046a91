-- The policies of `penstock socks` and `penstock connect`. What is wrong is told in the words of the command line.
local destination_rules = require "penstock.destination_rules"
local logins = require "penstock.logins"
local error, pcall = error, pcall

local function check(option, f, value)
  local ok, why = pcall(f, value)
  if not ok then error(option .. ": " .. why, 0) end
end

-- preset(name, allow, auth) -> a function that makes the policy. `allow`: "any", or destinations with commas between
-- them; `auth`: a file of logins, or nil.
return function(name, allow, auth)
  local list = "any"
  if allow ~= "any" then
    list = {}
    for text in (allow .. ","):gmatch "([^,]*)," do
      if text == "any" then error("--allow: any stands alone; *:443 is everywhere at one port", 0) end
      list[#list + 1] = text
    end
  end
  check("--allow", destination_rules.new, list)
  if auth then check("--auth", logins.new, auth) end
  return function() return require("penstock.policy." .. name) { allow = list, users = auth } end
end
