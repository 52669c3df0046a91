local dialogues = require "support.dialogues"
local starttls = require "support.starttls"
local t = require "penstock.test"

local load, start = starttls.load, starttls.start
local speak, answer, expect_relayed = starttls.speak, starttls.answer, starttls.expect_relayed

for _, protocol in ipairs { "postgres", "smtp", "imap", "xmpp", "ldap" } do
  local d = dialogues[protocol]
  describe("conn:hello after STARTTLS of " .. protocol, function()
    for _, hook in ipairs { "accept", "connect", "connected", "handshake" } do
      it("routes by the name and makes the same dialogue with the upstream, in " .. hook, function()
        local p, named, default = start(protocol, hook)
        local u = hook == "connect" and named or default
        local c, hello = p:client(), dialogues.hello "db.test"
        speak(c, d, function(bytes) c:send(bytes) end)
        c:send(hello)
        answer(u, d)
        expect_relayed(c, u, hello)
        c:finish()
        u:finish()
        local line = c:access()
        assert.equal("eof", line.reason)
        assert.same({ "db.test", "h2", "4865 0,16" }, { line.tags.sni, line.tags.alpn, line.tags.numbers })
      end)
    end

    it("leaves the client to the handshake hook, which comes behind the dialogue", function()
      local p, u = start(protocol, nil, [[handshake = function(conn, client, upstream)
        conn:tag("first", client:peek(1):byte())
        upstream:write(client:exactly(5))
      end]])
      local c, hello = p:client(), dialogues.hello "db.test"
      speak(c, d, function(bytes) c:send(bytes) end)
      c:send(hello)
      answer(u, d)
      expect_relayed(c, u, hello)
      assert.equal("22", c:reset():access().tags.first)
    end)

    it("takes what the client says in any split", function()
      for split = 1, #d.client do
        t.splits(d.client[split].say, function(parts)
          local p, u = start(protocol)
          local c, hello = p:client(), dialogues.hello "db.test"
          speak(c, d, function(bytes, i)
            for _, part in ipairs(i == split and parts or { bytes }) do c:send(part) end
          end)
          c:send(hello)
          answer(u, d)
          expect_relayed(c, u, hello)
        end)
      end
    end)

    for _, most in ipairs { 16384, 40, 1 } do
      it(("takes a ClientHello in records of %d bytes in any split"):format(most), function()
        local hello = dialogues.hello("db.test", most)
        t.splits(hello, function(parts)
          local p, u = start(protocol)
          local c = p:client()
          speak(c, d, function(bytes) c:send(bytes) end)
          for _, part in ipairs(parts) do c:send(part) end
          answer(u, d)
          expect_relayed(c, u, hello)
        end)
      end)
    end

    it("takes what the upstream says in any split", function()
      for split = 1, #d.upstream do
        t.splits(d.upstream[split].say, function(parts)
          local p, u = start(protocol)
          local c, hello = p:client(), dialogues.hello "db.test"
          speak(c, d, function(bytes) c:send(bytes) end)
          c:send(hello)
          for i, step in ipairs(d.upstream) do
            assert.equal(step.hear, u:read())
            for _, part in ipairs(i == split and parts or { step.say }) do u:send(part) end
          end
          expect_relayed(c, u, hello)
        end)
      end
    end)

    it("refuses what a client sends in the clear behind its STARTTLS", function()
      local p, u = start(protocol)
      local c = p:client()
      if d.greeted then c:read() end
      for i, step in ipairs(d.client) do
        c:send(step.say .. (i == #d.client and dialogues.hello "db.test" or ""))
        if i < #d.client then c:read() end
      end
      assert.equal("", c:read())
      c:reset()
      assert.equal("mismatch", c:access().tags.why)
      assert.equal(0, #u.connections)
    end)

    it("ends when the upstream sends more than its word that TLS may begin", function()
      local p, u = start(protocol)
      local c = p:client()
      speak(c, d, function(bytes) c:send(bytes) end)
      c:send(dialogues.hello "db.test")
      for i, step in ipairs(d.upstream) do
        u:read()
        u:send(step.say .. (i == #d.upstream and "injected" or ""))
      end
      assert.same({ "tls", "starttls" }, { c:closed() })
      assert.equal("upstream", c:access().side)
      assert.matches("sent more than its word", table.concat(p:log(), "\n"))
      assert.equal("rst", c:ended())
      assert.equal("", u:read())
    end)

    it("never lets an upstream that ends during the dialogue pass for a clean end", function()
      for last = 1, #d.upstream do
        local p, u = start(protocol)
        local c = p:client()
        speak(c, d, function(bytes) c:send(bytes) end)
        c:send(dialogues.hello "db.test")
        for i = 1, last do
          u:read()
          if i < last then u:send(d.upstream[i].say) else u:send(d.upstream[i].say:sub(1, -2)):finish() end
        end
        assert.same({ "tls", "starttls" }, { c:closed() })
        assert.equal("rst", c:ended())
        assert.matches("it has ended the connection", table.concat(p:log(), "\n"), 1, true)
      end
    end)

    it("has one deadline for all of it", function()
      local p = start(protocol)
      local c = p:client()
      if d.greeted then c:read() end
      local all = d.client[1].say
      for i = 1, 3 do
        c:send(all:sub(i, i))
        t.advance "4s"
      end
      c:reset()
      assert.equal("timeout", c:access().tags.why)
    end)

    it("says eof when the client ends instead", function()
      local p = start(protocol)
      local c = p:client()
      c:send(d.client[1].say:sub(1, -2)):finish()
      c:reset()
      assert.equal("eof", c:access().tags.why)
    end)

    it("is no hello when something else follows", function()
      local p, _, default = start(protocol)
      local c = p:client()
      speak(c, d, function(bytes) c:send(bytes) end)
      c:send "GET / HTTP/1.0\r\n\r\n"
      assert.same({ "tls", "starttls" }, { c:closed() })
      assert.equal("mismatch", c:access().tags.why)
      assert.equal("", default:received())
    end)
  end)
end

describe("conn:hello{ starttls = … }", function()
  it("refuses options that it does not have, with the nearest", function()
    for text, told in pairs { ['{ startls = "smtp" }'] = 'did you mean "starttls"?',
      ['{ starttls = "postgre" }'] =
        'starttls is one of imap, ldap, mysql, postgres, smtp, xmpp, did you mean "postgres"?',
      ['{ starttls = 1 }'] = "starttls is one of", ['{ starttls = "smtp", name = "a b" }'] = "name is the host name",
      ['{ name = "a" }'] = "starttls is one of" } do
      local p = load(("return { connect = function(conn)\nconn:hello %s\nend }"):format(text))
      p:expect_error(":3: conn:hello{.*" .. told:gsub("[%p]", "%%%0"))
      p:client()
    end
  end)

  it("speaks with the client once, however often it is called", function()
    local p = load [[return { connect = function(conn)
      local a, b = conn:hello { starttls = "postgres" }, conn:hello { starttls = "postgres" }
      conn:tag("same", a.sni == b.sni and a.sni == conn:hello().sni)
      return "db.test:99"
    end }]]
    local u = p:upstream "db.test:99"
    local c, hello = p:client(), dialogues.hello "db.test"
    speak(c, dialogues.postgres, function(bytes) c:send(bytes) end)
    c:send(hello)
    answer(u, dialogues.postgres)
    expect_relayed(c, u, hello)
    assert.equal("true", c:reset():access().tags.same)
  end)

  it("speaks with both sides once in the handshake hook, too", function()
    for _, protocol in ipairs { "smtp", "mysql" } do
      local p = load(([[return { handshake = function(conn)
        local a, b = conn:hello { starttls = %q }, conn:hello { starttls = %q }
        conn:tag("same", a.sni == b.sni)
      end }]]):format(protocol, protocol))
      local u = p:upstream "default.test:99"
      local c, hello = p:client(), dialogues.hello "db.test"
      if protocol == "mysql" then
        u:send(dialogues.mysql.greeting)
        assert.equal(dialogues.mysql.greeting, c:read())
        c:send(dialogues.mysql.request):send(hello)
        assert.equal(dialogues.mysql.request .. hello, u:read())
      else
        speak(c, dialogues.smtp, function(bytes) c:send(bytes) end)
        c:send(hello)
        answer(u, dialogues.smtp)
        expect_relayed(c, u, hello)
      end
      assert.equal("true", c:reset():access().tags.same)
    end
  end)

  it("leaves a connection as it is when the call was wrong", function()
    local p = load [[return { connect = function(conn)
      conn:tag("ok", (pcall(conn.hello, conn, { starttls = "mysql" })))
    end }]]
    local u, c = p:upstream "default.test:99", p:client()
    u:send "greeting"
    c:send "words"
    assert.same({ "greeting", "words" }, { c:read(), u:read() })
    assert.equal("false", c:reset():access().tags.ok)
  end)

  it("cannot be asked in two protocols", function()
    local p = load [[return { connect = function(conn)
      conn:hello { starttls = "postgres" }
      conn:hello { starttls = "smtp" }
    end }]]
    p:expect_error ":4: .*in the words of postgres already"
    p:client():send("\0\0\0\8\4\210\22\47"):send(dialogues.hello "db.test")
  end)

  it("is not for filters, where bytes are relayed already", function()
    local p = load [[return { filter = { up = function(conn) conn:hello { starttls = "smtp" } end } }]]
    p:upstream "default.test:99"
    p:expect_error "call it in accept, connect, connected or handshake"
    p:client()
  end)

  it("goes on to the next destination with the same dialogue", function()
    local p = load [[return {
      connect = function(conn) assert(conn:hello { starttls = "postgres" }) return "gone.test:99" end,
      failed = function() return "db.test:99" end,
    }]]
    local u = p:upstream "db.test:99"
    p:fail("gone.test:99", "refused")
    local c, hello = p:client(), dialogues.hello "db.test"
    speak(c, dialogues.postgres, function(bytes) c:send(bytes) end)
    c:send(hello)
    answer(u, dialogues.postgres)
    expect_relayed(c, u, hello)
  end)

  it("leaves what a cancelled call has not touched, and ends what it has", function()
    local text = [[return {
      connect = function(conn)
        local _, why = ps.timeout(1, function() conn:hello { starttls = %q } end)
        conn:tag("why", why)
      end,
      handshake = function(conn, client, upstream) upstream:write("<", client:read(), ">") end,
    }]]
    local p = load(text:format "postgres")
    local u, c = p:upstream "default.test:99", p:client()
    t.advance "1s"
    c:send "hello"
    assert.equal("<hello>", u:read())
    assert.equal("timeout", c:reset():access().tags.why)
    p = load(text:format "smtp")
    p:upstream "default.test:99"
    c = p:client()
    t.advance "1s"
    assert.same({ "tls", "starttls" }, { c:closed() })
    assert.matches("has not sent a ClientHello", table.concat(p:log(), "\n"), 1, true)
  end)

  it("ends with a client that resets in the midst of it", function()
    for _, hook in ipairs { "connect", "handshake" } do
      local p = start("smtp", hook)
      local c = p:client():send "EHLO"
      c:reset()
      assert.equal("reset", (c:closed()))
    end
  end)

  it("ends what takes longer than the handshake timeout with the upstream", function()
    local p, u = start "postgres"
    local c = p:client():send("\0\0\0\8\4\210\22\47"):send(dialogues.hello "db.test")
    assert.equal("\0\0\0\8\4\210\22\47", u:read())
    t.advance "11s"
    assert.same({ "timeout", "handshake" }, { c:closed() })
  end)
end)

describe("conn:hello", function()
  it("says too_long of a ClientHello of more than 64 KiB, as soon as its length is known", function()
    local p = load [[return { connect = function(conn) conn:tag("why", (select(2, conn:hello()))) end }]]
    local c = p:client():send "\22\3\1\64\0\1\1\0\0"
    assert.equal("too_long", c:reset():access().tags.why)
  end)
end)
