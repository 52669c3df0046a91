-- Every example of docs/policies.md loads.
local t = require "penstock.test"

describe("docs/policies.md", function()
  local file = assert(io.open "docs/policies.md")
  local text = file:read "*a"
  file:close()
  local n = 0
  for block in text:gmatch "```lua\n(.-)```" do
    n = n + 1
    it(("example %d loads: %s"):format(n, block:match "^[^\n]*"), function()
      local path = os.tmpname()
      local out = assert(io.open(path, "w"))
      out:write(block)
      out:close()
      local ok, why = pcall(t.load, path, block:find "ps.listen" and {} or { to = "127.0.0.1:7001" })
      os.remove(path)
      assert.is_true(ok, why)
    end)
  end

  it("has a section with an example for each policy", function()
    assert.is_true(n >= 12)
    for name in text:gmatch "\n| %[([%a, ]+)%]%(" do
      assert.truthy(text:find("\n## " .. name .. "\n", 1, true), name)
    end
  end)
end)
