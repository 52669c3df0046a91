-- Each protocol's own words before TLS: what else may be said, what is refused, and what is told of upstreams.
local dialogues = require "support.dialogues"
local starttls = require "support.starttls"
local t = require "penstock.test"

local load, start = starttls.load, starttls.start
local speak, answer, expect_relayed = starttls.speak, starttls.answer, starttls.expect_relayed

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
