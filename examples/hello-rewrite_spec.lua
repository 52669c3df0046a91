local t = require "penstock.test"

describe("hello-rewrite.lua", function()
  local p, u, c

  before_each(function()
    p = t.load "hello-rewrite.lua"
    u, c = p:upstream "127.0.0.1:7001", p:client()
  end)

  it("replaces hello in what the client sends", function()
    c:send "hello, hello!\n"
    assert.equal("howdy, howdy!\n", u:received())
  end)

  it("leaves what the server sends alone", function()
    u:send "hello\n"
    assert.equal("hello\n", c:received())
  end)

  it("says at the end how many it replaced", function()
    c:send("hello hello"):send "bye"
    c:finish()
    u:finish()
    assert.equal("eof", c:closed())
    assert.same({ "info: 2 tokens replaced" }, p:log())
  end)

  it("does not see a token that lies across two chunks", function()
    c:send("hel"):send "lo"
    assert.equal("hello", u:received())
  end)
end)
