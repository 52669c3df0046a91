-- What penstock may do, and what may be done to it: users, memory, secrets.
local support = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"

local case, case_as_root, sys = support.case, support.case_as_root, support.sys

local function status_of(p, field)
  return sys.read_file(("/proc/%d/status"):format(p.pid)):match("\n" .. field .. ":\t([^\n]*)")
end

describe("penstock", function()
  case_as_root("becomes the user once sockets and keys are open, in every thread", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    tls.run(("chmod 600 %s"):format(cert.key))
    local server = t:listen()
    local p = t:penstock { "--user", "nobody", "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0",
      server.address }
    tls.client(t:connect(p)):handshake():send "x"
    t:accept(server):expect "x"
    local nobody = io.popen("id -u nobody"):read "*l"
    for task in io.popen(("ls /proc/%d/task"):format(p.pid)):lines() do
      local status = sys.read_file(("/proc/%d/task/%s/status"):format(p.pid, task))
      assert.equal(("%s\t%s\t%s\t%s"):format(nobody, nobody, nobody, nobody), status:match "\nUid:\t([^\n]*)")
      assert.equal("0000000000000000", status:match "\nCapEff:\t([^\n]*)")
    end
    -- What a reload may not read leaves the present version in force.
    t:expect_error "stays in force"
    tls.run(("chmod 700 %s"):format(t:folder()))
    p:signal "HUP"
    p:log 'version 1 stays in force: cannot read ".*": Permission denied'
    tls.client(t:connect(p)):handshake():send "y"
    t:accept(server):expect "y"
  end)

  case_as_root("becomes the group, too, and no other", function(t)
    local p = t:penstock { "--user", "nobody:daemon", "127.0.0.1:0", "127.0.0.1:1" }
    local daemon = io.popen("getent group daemon"):read("*l"):match ":(%d+):"
    assert.equal(daemon, status_of(p, "Gid"):match "^%d+")
    assert.is_nil(status_of(p, "Groups"):find "%f[%d]0%f[%D]")
  end)

  case("refuses users that are not there", function(t)
    for text, right in pairs {
      ["no-such-user"] = 'there is no user "no-such-user"', ["nobody:no-such-group"] = 'there is no group',
    } do
      t:expect_error "there is no"
      local p = t:start { "--user", text, "127.0.0.1:0", "127.0.0.1:1" }
      assert.equal(2, p:wait())
      assert.is_truthy(p.err:find(right, 1, true), p.err)
      p.status = 0
    end
  end)

  -- Files of a process that must not be dumped belong to root, whoever runs it.
  case_as_root("lets nobody dump its memory as soon as there are keys in it, unless it is told to", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    tls.run(("chmod 755 %s && chmod 644 %s"):format(t:folder(), cert.key))
    local function owner(...)
      local p = t:spawn { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", os.getenv "PENSTOCK", ... }
      assert(p:wait_for("err", "room for %d+ connections"), p.err)
      local uid = io.popen(("stat -c %%u /proc/%d/environ"):format(p.pid)):read "*l"
      p:signal "TERM"
      assert.equal(0, p:wait())
      return uid
    end
    local with_tls = { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", "127.0.0.1:1" }
    assert.equal("65534", owner("127.0.0.1:0", "127.0.0.1:1"))
    assert.equal("0", owner(unpack(with_tls)))
    assert.equal("65534", owner("--core-dumps", unpack(with_tls)))
  end)

  case("writes secrets of sessions where SSLKEYLOGFILE says, and warns of it", function(t)
    local cert, server = tls.certificate(t:folder(), "a.lab"), t:listen()
    local keys = t:folder() .. "/keys"
    local p = t:penstock({ "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", server.address },
      { env = { SSLKEYLOGFILE = keys } })
    p:log "warn  SSLKEYLOGFILE: the secrets of ALL TLS sessions are written to"
    tls.client(t:connect(p)):handshake()
    t:accept(server)
    assert.matches("CLIENT_TRAFFIC_SECRET_0 %x+ %x+\n", sys.read_file(keys))
    assert.equal("600", io.popen("stat -c %a " .. keys):read "*l")
    local quiet = t:penstock { "--tls-cert", cert.cert, "--tls-key", cert.key, "127.0.0.1:0", server.address }
    assert.is_nil(quiet.err:find("SSLKEYLOGFILE", 1, true))
  end)

  case("says nothing of keys and passwords in its log", function(t)
    local cert = tls.certificate(t:folder(), "a.lab")
    local p = t:penstock { "--log", "debug", "--tls-cert", cert.cert, "--tls-key", cert.key, "--via",
      "socks5://user:hush-hush@127.0.0.1:1", "127.0.0.1:0", "db.lab:1" }
    tls.client(t:connect(p)):handshake():expect_end "ECONNRESET"
    p:access()
    local secret = sys.read_file(cert.key):match "\n([%w+/=]+)\n"
    assert.is_nil(p.err:find(secret, 1, true))
    assert.is_nil(p.err:find("hush", 1, true))
  end)
end)
