local nearest = require "penstock.nearest"
local hooks = { "accept", "connect", "failed", "connected", "data", "close" }

describe("nearest", function()
  it("finds what was meant", function()
    assert.equal("connect", nearest("conect", hooks))
    assert.equal("connected", nearest("conected", hooks))
    assert.equal("accept", nearest("acecpt", hooks))
    assert.equal("close", nearest("Close", hooks))
    assert.equal("data", nearest("dta", hooks))
  end)

  it("stays silent about what is like nothing", function()
    assert.is_nil(nearest("banana", hooks))
    assert.is_nil(nearest("", hooks))
    assert.is_nil(nearest(7, hooks))
    assert.is_nil(nearest(("x"):rep(1000), hooks))
  end)
end)
