-- docs/policies.md and lua/penstock.policy.d.lua tell of the ready policies what is.
local t = require "penstock.test"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local policies = {
  "allow", "deny", "rate", "log", "router", "headers", "lines", "mirror", "tarpit", "quota", "redis", "socks",
  "connect",
}
local text, annotations = read "docs/policies.md", read "lua/penstock.policy.d.lua"

describe("docs/policies.md", function()
  for block in text:gmatch "```lua\n(.-)```" do
    it("has an example that loads: " .. block:match "^[^\n]*", function()
      local path = os.tmpname()
      local out = assert(io.open(path, "w"))
      out:write(block)
      out:close()
      local ok, why = pcall(t.load, path, block:find "ps.listen" and {} or { to = "127.0.0.1:7001" })
      os.remove(path)
      assert.is_true(ok, why)
    end)
  end
end)

-- The options of a policy, as its module names them.
local function options_of(name)
  if name == "allow" then return { "deny", "reason", "reset", "hang" } end
  if name == "deny" then return { "allow", "reason", "reset", "hang" } end
  local source, list = read("lua/penstock/policy/" .. name .. ".lua"), {}
  for word in source:match("\nlocal names = (%b{})"):gmatch '"([%w_]+)"' do list[#list + 1] = word end
  return list
end

-- The section of a policy in the manual.
local function section_of(name)
  local together = {
    allow = "allow, deny", deny = "allow, deny", socks = "socks, connect", connect = "socks, connect",
  }
  local title = together[name] or name
  return assert((text .. "\n## "):match("\n## " .. title .. "\n(.-)\n## "), name)
end

describe("the options of", function()
  for _, name in ipairs(policies) do
    it(name .. " are documented and annotated", function()
      local section = section_of(name)
      assert.matches("```lua\n.-penstock%.policy%." .. (name == "deny" and "allow" or name), section)
      local class = name:gsub("^%l", string.upper) .. "Options"
      local pattern = "@class penstock%.policy%." .. class .. "[^\n]*\n(.-)\n\n"
      local fields = assert((annotations .. "\n\n"):match(pattern), class)
      local options = options_of(name)
      assert.is_true(#options >= 2)
      for _, option in ipairs(options) do
        assert.truthy(section:find("`" .. option .. "`", 1, true), option .. " is not in the manual")
        assert.truthy(fields:find("%-%-%-@field " .. option .. "%??%s"), option .. " is not annotated")
      end
      for field in fields:gmatch "%-%-%-@field ([%w_]+)" do
        assert.truthy((" " .. table.concat(options, " ") .. " "):find(" " .. field .. " ", 1, true),
          field .. " is annotated, but is none")
      end
    end)
  end
end)
