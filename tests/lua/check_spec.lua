local check = require "penstock.check"

local function message(...)
  local ok, why = pcall(...)
  assert.is_false(ok)
  return why
end

describe("check.policy", function()
  it("takes a table", function()
    local policy = { connect = print, data = print }
    assert.equal(policy, check.policy(policy, "p.lua"))
    assert.same({}, check.policy({}, "p.lua"))
  end)

  it("says what a policy file must return", function()
    assert.matches("p.lua returned nothing, but a policy is a table of hooks", message(check.policy, nil, "p.lua"))
    assert.matches("p.lua returned a boolean", message(check.policy, true, "p.lua"))
  end)
end)

describe("check.keys", function()
  it("blames the caller's line", function()
    local function call(options) check.keys(options, "ps.x{}", { "reason", "hang" }, 2) end
    assert.has_no_error(function() call { reason = 1 } end)
    assert.matches('check_spec.lua:%d+: ps.x{} has no option "reasn", did you mean "reason"?',
      message(function() call { reasn = 1 } end))
    assert.matches("check_spec.lua:%d+: ps.x{} expects a table, got nothing", message(function() call() end))
  end)
end)
