local dialogues = require "support.dialogues"
local t = require "penstock.test"

local policy = [[
return { %s = function(conn)
  local hello, why, detail = conn:hello { starttls = %q }
  conn:tag("sni", hello and hello.sni)
  conn:tag("why", why)
  conn:tag("alpn", hello and table.concat(hello.alpn, ","))
  conn:tag("numbers", hello and table.concat(hello.ciphers, ",") .. " " .. table.concat(hello.extensions, ","))
  if %q == "connect" and hello then return hello.sni .. ":99" end
end, %s }]]

-- load(text) -> the policy with this text
local function load(text, options)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write('local ps = require "penstock"\n', text)
  file:close()
  local ok, p = pcall(t.load, path, options or { to = "default.test:99" })
  os.remove(path)
  if not ok then error(p, 0) end
  return p
end

local function start(protocol, hook, more)
  local p = load(policy:format(hook or "connect", protocol, hook or "connect", more or ""))
  return p, p:upstream "db.test:99", p:upstream "default.test:99"
end

-- The client's part up to its ClientHello; `send` sends one step of it.
local function speak(c, d, send)
  if d.greeted then assert.matches(d.greeted, c:read()) end
  for i, step in ipairs(d.client) do
    send(step.say, i)
    assert.matches(step.hear, c:read())
  end
end

-- The upstream's part. Nothing but this and then the ClientHello may come.
local function answer(u, d)
  for _, step in ipairs(d.upstream) do
    assert.equal(step.hear, u:read())
    u:send(step.say)
  end
end

-- How a dialogue goes on once the ClientHello has been routed: both ways, whatever is said.
local function expect_relayed(c, u, hello)
  assert.equal(hello, u:read())
  u:send "ServerHello"
  assert.equal("ServerHello", c:read())
  c:send "Finished"
  assert.equal("Finished", u:read())
end

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

-- What a client gets and which word the script, when it says this.
local function refused(protocol, ...)
  local p, _, default = start(protocol)
  local c = p:client()
  local heard = {}
  for _, bytes in ipairs { ... } do
    c:send(bytes)
    heard[#heard + 1] = c:read()
  end
  local gone_on = default:received()
  c:reset()
  return c:access().tags.why, table.concat(heard), gone_on
end

describe("PostgreSQL", function()
  local GSS, SSL = "\0\0\0\8\4\210\22\48", "\0\0\0\8\4\210\22\47"
  local startup = "\0\0\0\20\0\3\0\0user\0bob\0\0"

  it("declines GSSAPI and waits for TLS", function()
    local p, u = start "postgres"
    local c, hello = p:client(), dialogues.hello "db.test"
    c:send(GSS)
    assert.equal("N", c:read())
    c:send(SSL)
    assert.equal("S", c:read())
    c:send(hello)
    answer(u, dialogues.postgres)
    expect_relayed(c, u, hello)
  end)

  it("takes a client that begins with TLS at once as it is", function()
    local p, u = start "postgres"
    local c, hello = p:client(), dialogues.hello "db.test"
    c:send(hello)
    expect_relayed(c, u, hello)
  end)

  it("leaves a client without TLS untouched", function()
    assert.same({ "mismatch", "", startup }, { refused("postgres", startup) })
    assert.same({ "mismatch", "N", startup }, { refused("postgres", GSS, startup) })
  end)

  it("takes neither GSSAPI twice nor anything behind it", function()
    assert.same({ "mismatch", "N", GSS }, { refused("postgres", GSS, GSS) })
    assert.equal("mismatch", (refused("postgres", GSS .. SSL)))
  end)

  it("tells that the upstream has no TLS", function()
    local p, u = start "postgres"
    local c = p:client():send(SSL)
    c:send(dialogues.hello "db.test")
    u:send "N"
    assert.same({ "tls", "starttls" }, { c:closed() })
    assert.matches("warn: .*STARTTLS, postgres%): it says that it has no TLS", table.concat(p:log(), "\n"))
  end)
end)

describe("SMTP", function()
  it("answers what may come before STARTTLS, and refuses the rest", function()
    local why, heard = refused("smtp", "HELO a\r\n", "STARTTLS\r\n", "NOOP\r\n", "RSET\r\n", "MAIL FROM:<a@b>\r\n",
      "EHLO a\r\n", "STARTTLS now\r\n", "QUIT\r\n")
    assert.equal("eof", why)
    local codes = {}
    for code in heard:gmatch "(%d%d%d)[ -][^\n]*\n" do codes[#codes + 1] = code end
    assert.equal("220 250 503 250 250 530 250 250 501 221", table.concat(codes, " "))
  end)

  it("greets with the name it is given", function()
    local p = load [[return { connect = function(conn) conn:hello { starttls = "smtp", name = "mx.lab" } end }]]
    assert.equal("220 mx.lab ESMTP\r\n", p:client():read())
  end)

  it("does not take bare line feeds, control characters, endless lines, or commands without end", function()
    assert.equal("mismatch", (refused("smtp", "EHLO a\n")))
    assert.equal("mismatch", (refused("smtp", "EHLO a\rSTARTTLS\r\n")))
    assert.equal("mismatch", (refused("smtp", "\22\3\1\r\n")))
    assert.equal("too_long", (refused("smtp", ("x"):rep(1002))))
    assert.equal("too_long", (refused("smtp", ("NOOP\r\n"):rep(20))))
  end)

  local function upstream_says(...)
    local p, u = start "smtp"
    local c = p:client()
    speak(c, dialogues.smtp, function(bytes) c:send(bytes) end)
    c:send(dialogues.hello "db.test")
    for _, bytes in ipairs { ... } do u:send(bytes) end
    assert.same({ "tls", "starttls" }, { c:closed() })
    return table.concat(p:log(), "\n")
  end

  it("tells what the upstream has said instead", function()
    assert.matches("it answers 554 to the connection: go away", upstream_says "554 go away\r\n", 1, true)
    assert.matches("it does not offer STARTTLS", upstream_says("220 a\r\n", "250 a STARTTLS\r\n"), 1, true)
    assert.matches("it answers 454 to STARTTLS: no",
      upstream_says("220 a\r\n", "250-a\r\n250 STARTTLS\r\n", "454 no\r\n"), 1, true)
    assert.matches("no reply of SMTP", upstream_says "SSH-2.0-x\r\n", 1, true)
    assert.matches("no reply of SMTP", upstream_says "220-a\r\n250 b\r\n", 1, true)
    assert.matches("too long", upstream_says(("220-a\r\n"):rep(100)), 1, true)
    assert.matches("its answer is too long", upstream_says(("2"):rep(1002)), 1, true)
    assert.matches("its answer is another protocol's", upstream_says "220 a\n", 1, true)
  end)
end)

describe("IMAP", function()
  it("answers what may come before STARTTLS, and refuses the rest", function()
    local why, heard = refused("imap", "1 noop\r\n", '2 ID ("name" "x")\r\n', "3 LOGIN a b\r\n", "4 LOGOUT\r\n")
    assert.equal("eof", why)
    assert.matches("1 OK Done\r\n* ID NIL\r\n2 OK Done\r\n3 NO [PRIVACYREQUIRED] STARTTLS first\r\n", heard, 1, true)
    assert.matches("* BYE\r\n4 OK Done\r\n", heard, 1, true)
  end)

  it("does not take literals without waiting, nor what is no command", function()
    assert.equal("mismatch", (refused("imap", "a LOGIN {8+}\r\n")))
    assert.equal("mismatch", (refused("imap", "a\r\n")))
    assert.equal("mismatch", (refused("imap", "a noop\n")))
    assert.equal("mismatch", (refused("imap", "* noop\r\n")))
    assert.equal("too_long", (refused("imap", ("x"):rep(8194))))
  end)

  it("tells what the upstream has said instead", function()
    for said, told in pairs { ["* PREAUTH hi\r\n"] = "PREAUTH", ["* OK hi\r\np1 NO never\r\n"] = "p1 NO never",
      ["* OK hi\r\n+ more\r\n"] = "+ more", ["* OK hi\r\n" .. ("* x\r\n"):rep(100)] = "does not answer" } do
      local p, u = start "imap"
      local c = p:client()
      speak(c, dialogues.imap, function(bytes) c:send(bytes) end)
      c:send(dialogues.hello "db.test")
      u:send(said)
      assert.same({ "tls", "starttls" }, { c:closed() })
      assert.matches(told, table.concat(p:log(), "\n"), 1, true)
    end
  end)
end)

describe("XMPP", function()
  local header, TLS = dialogues.xmpp_header, dialogues.TLS

  it("takes <starttls> with an end of its own, and streams between servers", function()
    local p, u = start "xmpp"
    local c, hello = p:client(), dialogues.hello "db.test"
    c:send((header:gsub("jabber:client", "jabber:server")))
    assert.matches("xmlns='jabber:server'", c:read(), 1, true)
    c:send('<starttls xmlns="' .. TLS .. '">')
    c:send "</starttls>"
    assert.matches("^<proceed", c:read())
    c:send(hello)
    assert.matches("jabber:server", u:read(), 1, true)
    u:send("<stream:stream version='1.0'><stream:features><starttls xmlns='" .. TLS .. "'/></stream:features>")
    u:read()
    u:send("<proceed xmlns='" .. TLS .. "'></proceed>")
    expect_relayed(c, u, hello)
  end)

  it("takes no other stream, and nothing that is none", function()
    for _, wrong in ipairs { "GET / HTTP/1.0\r\n\r\n", "<a>", (header:gsub("client", "other")),
      (header:gsub("'1.0'>", "'2.0'>")), (header:gsub("im.example", 'a"b')), "x" .. header } do
      assert.equal("mismatch", (refused("xmpp", wrong)))
    end
    assert.equal("mismatch", (refused("xmpp", header, "<auth/>")))
    assert.equal("mismatch", (refused("xmpp", header, "<starttls xmlns='other'/>")))
    assert.equal("too_long", (refused("xmpp", "<stream:stream a='" .. (">"):rep(5000))))
    assert.equal("too_long", (refused("xmpp", "<" .. ("x"):rep(5000))))
  end)

  it("tells what the upstream has said instead", function()
    local features = "<stream:stream version='1.0'><stream:features><starttls xmlns='" .. TLS .. "'/></stream:features>"
    for said, told in pairs { ["<a><stream:features/>"] = "does not offer", ["<a><stream:error><b/>"] = "with an error",
      [features .. "<failure/></stream:stream>"] = "it answers to STARTTLS: <failure/>",
      [("<a>"):rep(500)] = "too long", ["<" .. ("a"):rep(65536)] = "answer is too long",
      ["220 ready"] = "another protocol's",
      ["<a b='>\"' c=\"'>\"><stream:features></stream:features>"] = "does not offer" } do
      local p, u = start "xmpp"
      local c = p:client()
      speak(c, dialogues.xmpp, function(bytes) c:send(bytes) end)
      c:send(dialogues.hello "db.test")
      u:send(said)
      assert.same({ "tls", "starttls" }, { c:closed() })
      assert.matches(told, table.concat(p:log(), "\n"), 1, true)
    end
  end)
end)

describe("LDAP", function()
  it("takes StartTLS with lengths in any form and numbers of any size, and answers to that number", function()
    local p, u = start "ldap"
    local c, hello = p:client(), dialogues.hello "db.test"
    local request = "0\132\0\0\0\36\2\4\1\2\3\4w\132\0\0\0\24\128\0221.3.6.1.4.1.1466.20037"
    c:send(request)
    assert.matches("\2\4\1\2\3\4x", c:read(), 1, true)
    c:send(hello)
    assert.equal(request, u:read())
    u:send "0\15\2\4\1\2\3\4x\7\10\1\0\4\0\4\0"
    expect_relayed(c, u, hello)
  end)

  it("leaves untouched what is no StartTLS", function()
    local bind = "0\12\2\1\1`\7\2\1\3\4\0\128\0"
    assert.same({ "mismatch", "", bind }, { refused("ldap", bind) })
    for _, wrong in ipairs { "GET / HTTP/1.0\r\n\r\n", "0\128", "0\133", "0\0", "0\3\2\1\1",
      (dialogues.START_TLS:gsub("1466", "1467")), (dialogues.START_TLS:gsub("^0\29", "0\31") .. "\160\0") } do
      assert.same({ "mismatch", "", wrong }, { refused("ldap", wrong) })
    end
    assert.equal("too_long", (refused("ldap", "0\130\2\1")))
  end)

  it("tells what the upstream has said instead", function()
    for said, told in pairs { ["0\12\2\1\1x\7\10\1\2\4\0\4\0"] = "result 2",
      ["0\12\2\1\9x\7\10\1\0\4\0\4\0"] = "none to StartTLS",
      ["0\12\2\1\1a\7\10\1\0\4\0\4\0"] = "none to StartTLS", ["x"] = "another protocol's",
      ["0\0"] = "none to StartTLS" } do
      local p, u = start "ldap"
      local c = p:client():send(dialogues.START_TLS)
      c:send(dialogues.hello "db.test")
      u:send(said)
      assert.same({ "tls", "starttls" }, { c:closed() })
      assert.matches(told, table.concat(p:log(), "\n"), 1, true)
    end
  end)
end)

describe("MySQL", function()
  local d = dialogues.mysql

  it("is looked at in the handshake hook, where the client gets the real server's greeting", function()
    t.splits(d.greeting, function(parts)
      local p, _, u = start("mysql", "handshake")
      local c, hello = p:client(), dialogues.hello "db.test"
      for _, part in ipairs(parts) do u:send(part) end
      assert.equal(d.greeting, c:read())
      c:send(d.request)
      assert.equal(d.request, u:read())
      c:send(hello)
      expect_relayed(c, u, hello)
      assert.equal("db.test", c:reset():access().tags.sni)
    end)
  end)

  it("takes what the client says in any split, also at once", function()
    t.splits(d.request .. dialogues.hello "db.test", function(parts)
      local p, _, u = start("mysql", "handshake")
      local c = p:client()
      u:send(d.greeting)
      for _, part in ipairs(parts) do c:send(part) end
      assert.equal(d.request .. dialogues.hello "db.test", u:read())
    end)
  end)

  it("lets pass what is no TLS: a server without it, a client without it, an error for a greeting", function()
    local response = "\38\0\0\1" .. "\5\166\255\25" .. ("x"):rep(34)
    for greeting, words in pairs { [d.greeting] = response, [d.plain_greeting] = d.request,
      ["\9\0\0\0\255\16\4Too many"] = "", ["SSH-2.0-x\r\n"] = "x" } do
      local p, _, u = start("mysql", "handshake")
      local c = p:client()
      u:send(greeting)
      c:send(words)
      assert.equal(greeting, c:read())
      assert.equal(words, u:read())
      assert.matches("mismatch", c:reset():access().tags.why)
    end
  end)

  it("cannot be looked at before there is an upstream, and says why", function()
    local p = start "mysql"
    p:expect_error "in mysql the server speaks first, with what only the real one knows: call it in the handshake hook"
    p:client()
  end)
end)

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
