local t = require "penstock.test"

describe("maintenance.lua", function()
  it("answers 503 with a page while the server is down, and forwards once it is back", function()
    local p = t.load("maintenance.lua", { to = "app.internal:80" })
    local u = p:upstream "app.internal:80"
    p:fail("app.internal:80", "refused", 1)
    local c = p:client():send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    local length, page = c:received():match "^HTTP/1.1 503 .*\r\nContent%-Length: (%d+)\r\n.*\r\n\r\n(.*)$"
    assert.equal("Back in a few minutes.\n", page)
    assert.equal(#page, tonumber(length))
    assert.equal("fin", c:ended())
    p:client():send "GET"
    assert.equal("GET", u:received())
  end)
end)
