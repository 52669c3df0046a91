local t = require "penstock.test"
local inline = require "support.inline"

describe("log", function()
  local p

  -- The lines of one connection that ends.
  local function lines(options, how)
    p = inline.load("log", options, { to = "127.0.0.1:7001", name = "web" })
    local u = p:upstream "127.0.0.1:7001"
    local c = p:client { ip = "10.0.0.1", port = 4711 }
    c:send "ping"
    u:send "answer"
    t.advance(1.5)
    if how then c:reset() else
      c:finish()
      u:finish()
    end
    return p:log(), c
  end

  it("writes a line of words for each connection", function()
    assert.same({ "info: time=2026-01-01T00:00:01Z id=1 listener=web client_ip=10.0.0.1 client_port=4711 " ..
      "upstream=127.0.0.1:7001 reason=eof side=client detail=- bytes_up=4 bytes_down=6 duration=1.5" }, (lines "{}"))
  end)

  it("writes JSON", function()
    assert.same({ 'info: {"client_ip":"10.0.0.1","bytes_up":4,"via":null,"duration":1.5}' },
      (lines '{ format = "json", fields = { "client_ip", "bytes_up", "via", "duration" } }'))
  end)

  it("writes a line of its own form", function()
    assert.same({ "warn: 10.0.0.1:4711 -> 127.0.0.1:7001 (eof) {}" },
      (lines '{ format = "{client_ip}:{client_port} -> {upstream_addr} ({reason}) {}", level = "warn" }'))
    assert.same({ "info: 10.0.0.1 4" },
      (lines "{ format = function(conn, info) return conn.client.ip .. ' ' .. info.bytes_up end }"))
  end)

  it("quotes what clients may have said, so that every line is one, and is JSON", function()
    local odd = [[values = { odd = function() return "a\nb\"\\c \255" end, utf = function() return "\195\164" end }]]
    assert.same({ 'info: odd="a\\nb\\"\\\\c \255" utf=\195\164' },
      (lines('{ fields = { "odd", "utf" }, ' .. odd .. "}")))
    assert.same({ 'info: {"odd":"a\\nb\\"\\\\c \\u00ff","utf":"\195\164"}' },
      (lines('{ format = "json", fields = { "odd", "utf" }, ' .. odd .. "}")))
  end)

  it("knows what is in conn.ctx, and functions' values", function()
    local text = [[{ fields = { "ctx.user", "big" },
      values = { big = function(_, info) return info.bytes_down > 5 end } }]]
    assert.same({ "info: ctx.user=- big=true" }, (lines(text)))
  end)

  it("adds fields to penstock's own access line", function()
    local _, c = lines '{ tags = { "client_key" } }'
    assert.equal("10.0.0.1", c:access().tags.client_key)
  end)

  it("keeps its line when the value of a tag is no text, or cannot be one", function()
    local got, c = lines [[{ fields = { "id" }, tags = { "odd", "ctx.none" },
      values = { odd = function() return {} end } }]]
    assert.same({ "info: id=1" }, got)
    assert.matches("^table: ", c:access().tags.odd)
  end)

  it("takes for UTF-8 what is UTF-8, and no more", function()
    local text = '{ format = "json", fields = { "v" }, values = { v = function() return "%s" end } }'
    for bytes, want in pairs {
      ["\\224\\160\\128"] = "\224\160\128", ["\\240\\144\\128\\128"] = "\240\144\128\128",
      ["\\237\\159\\191"] = "\237\159\191", ["\\244\\143\\191\\191"] = "\244\143\191\191",
      ["\\224\\159\\191"] = "\\u00e0\\u009f\\u00bf", ["\\237\\160\\128"] = "\\u00ed\\u00a0\\u0080",
      ["\\240\\143\\191\\191"] = "\\u00f0\\u008f\\u00bf\\u00bf",
      ["\\244\\144\\128\\128"] = "\\u00f4\\u0090\\u0080\\u0080",
    } do
      assert.same({ 'info: {"v":"' .. want .. '"}' }, (lines(text:format(bytes))))
    end
  end)

  it("samples, but for failures", function()
    assert.same({}, (lines "{ sample = 0 }"))
    assert.equal(1, #lines("{ sample = 0 }", "reset"))
    assert.equal(0, #lines("{ sample = 0, failures = false }", "reset"))
    p = inline.load("log", "{ sample = 0.5 }")
    local u = p:upstream "127.0.0.1:7001"
    for _ = 1, 100 do
      p:client():finish()
      u:finish()
    end
    assert.is_true(#p:log() > 20 and #p:log() < 80)
  end)

  it("refuses what makes no sense", function()
    inline.refuses("log", '{ fields = { "client_pi" } }', 'there is no field "client_pi", did you mean "client_ip"?')
    inline.refuses("log", '{ format = "xml" }', 'format is "json", "text", one line')
    inline.refuses("log", '{ format = "{reason}", fields = { "id" } }', "names its fields itself")
    inline.refuses("log", "{ sample = 2 }", "sample is the part")
    inline.refuses("log", '{ level = "loud" }', 'level is "debug" or')
    inline.refuses("log", '{ forma = "json" }', 'did you mean "format"?')
  end)
end)
