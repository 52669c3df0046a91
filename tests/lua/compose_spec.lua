local compose = require "penstock.compose"

local function policy(value, options)
  options = options or {}
  options.what = options.what or "p.lua"
  return compose.policy(value, options)
end

local function message(value, options)
  local ok, why = pcall(policy, value, options)
  assert.is_false(ok)
  return why
end

local function f() end
local function g() end

-- A hook that notes its call and decides.
local function hook(calls, name, decision)
  return function(...)
    calls[#calls + 1] = name
    calls.args = { ... }
    return decision
  end
end

describe("compose.policy", function()
  it("takes a single policy as it is", function()
    assert.same({ accept = f, connect = g, close = f, data = g },
      policy { accept = f, connect = g, close = f, data = g })
    assert.same({}, policy {})
    assert.same({}, policy(nil))
    assert.same({ connect = f }, policy { { { connect = f } } })
  end)

  for _, name in ipairs { "accept", "sni", "connect", "failed", "connected" } do
    it(name .. ": the first decision counts, in order", function()
      local calls = {}
      local composed = policy { { [name] = hook(calls, 1) }, { { [name] = hook(calls, 2, "x") } },
        { [name] = hook(calls, 3, "y") } }
      assert.equal("x", composed[name]("conn", "more"))
      assert.same({ 1, 2, args = { "conn", "more" } }, calls)
    end)
  end

  it("false is a decision of accept", function()
    local calls = {}
    local composed = policy { { accept = hook(calls, 1, false) }, { accept = hook(calls, 2) } }
    assert.is_false(composed.accept())
    assert.same({ 1, args = {} }, calls)
  end)

  it("a chosen destination comes after the connect hooks", function()
    local calls = {}
    local composed = policy({ connect = hook(calls, 1) }, { choose = hook(calls, 2, "h:1") })
    assert.equal("h:1", composed.connect("conn"))
    assert.same({ 1, 2, args = { "conn" } }, calls)
    assert.same({ connect = f }, policy(nil, { choose = f }))
  end)

  it("handshake: all in order", function()
    local calls = {}
    policy { { handshake = hook(calls, 1, true) }, { handshake = hook(calls, 2) } }.handshake("c", "a", "b")
    assert.same({ 1, 2, args = { "c", "a", "b" } }, calls)
  end)

  it("close: all of them, and the first error afterwards with its traceback", function()
    local calls = {}
    local composed = policy {
      { close = hook(calls, 1) }, { close = function() error("first") end }, { close = hook(calls, 3) },
      { close = function() error("second") end },
    }
    local ok, why = pcall(composed.close, "conn", "info")
    assert.is_false(ok)
    assert.same({ 1, 3, args = { "conn", "info" } }, calls)
    assert.matches("compose_spec.lua:%d+: first\nstack traceback:", why)
  end)

  it("close hooks that wait are resumed one after the other", function()
    local calls = {}
    local composed = policy { { close = function() calls[#calls + 1] = coroutine.yield(1) end },
      { close = function() calls[#calls + 1] = coroutine.yield(2) end } }
    local co = coroutine.create(composed.close)
    assert.same({ true, 1 }, { coroutine.resume(co) })
    assert.same({ true, 2 }, { coroutine.resume(co, "a") })
    assert.same({ true }, { coroutine.resume(co, "b") })
    assert.same({ "a", "b" }, calls)
  end)

  it("what passes bytes is a pipeline, up in order, down in reverse", function()
    local up, down = function() end, function() end
    local composed = policy { { data = f }, { filter = { up = up, down = down } }, { filter = { down = g } } }
    assert.same({ { kind = "data", f = f }, { kind = "filter", f = up } }, composed.up)
    assert.same({ { kind = "filter", f = g }, { kind = "filter", f = down }, { kind = "data", f = f } },
      composed.down)
    assert.is_nil(composed.data)
  end)

  it("one data hook alone stays one", function()
    assert.same({ data = f }, policy { { data = f }, {} })
    assert.same({ up = { { kind = "filter", f = f } } }, policy { filter = { up = f } })
    local two = policy { { data = f }, { data = f } }
    assert.is_nil(two.data)
    assert.equal(2, #two.up)
  end)

  it("refuses data and filter in one policy, and shows two", function()
    assert.matches("^p.lua: data and filter in one policy, .* the bytes of up; put them into two policies",
      message { data = f, filter = { up = f } })
    assert.matches("bytes of both", message { data = f, filter = { up = f, down = f } })
  end)

  it("refuses what serve would keep from running", function()
    assert.same({ serve = f, accept = g }, policy { serve = f, accept = g })
    assert.matches("serve answers the client itself, so there must be no destination", message({ serve = f },
      { target = true }))
    assert.matches("serve is given 2 times", message { { serve = f }, { serve = g } })
    for name, value in pairs { failed = f, connected = f, handshake = f, data = f, filter = { up = f } } do
      assert.matches("serve answers every client itself, so .* can never run", message { serve = f, [name] = value })
      assert.has_no_error(function() policy { serve = f, connect = g, [name] = value } end)
      assert.has_no_error(function() policy({ serve = f, [name] = value }, { choose = f }) end)
    end
  end)

  it("names the hook that was meant", function()
    assert.equal('p.lua: unknown hook "conect", did you mean "connect"?; the hooks are accept, sni, connect, ' ..
      "failed, connected, handshake, data, filter, serve, close", message { conect = f })
    assert.matches('unknown hook "x"; the hooks are', message { x = f })
  end)

  it("says what a hook must be", function()
    assert.matches('the hook "data" is a string, but must be a function: data = function', message { data = "x" })
    assert.matches('the hook "filter" is a function, but must be a table', message { filter = f })
    assert.matches("the filter is empty", message { filter = {} })
    assert.matches('filter has no direction "upp", did you mean "up"%?', message { filter = { upp = f } })
    assert.matches("filter.up is a boolean, but must be a function", message { filter = { up = true } })
  end)

  it("says what a policy must be", function()
    assert.matches("a policy is a table of hooks, or a list of such tables, not a string", message "x")
    assert.matches("not a boolean %(does the module that was required end with return%?%)", message(true))
    assert.matches('not both: "close" stands in a list', message { { accept = f }, close = f })
    assert.matches("not both: %[3%] stands in a list", message { { accept = f }, [3] = {} })
    local endless = {}
    endless[1] = endless
    assert.matches("nested without end", message(endless))
  end)
end)

describe("an accept hook that decides by the client", function()
  local at_client = require "penstock.at_client"
  local accept = at_client.hook(function(conn) return conn.ip end)
  local policies = { { connect = function() return "first" end }, { accept = accept }, { connect = g } }

  it("is asked in accept when there is no PROXY header to come, and else before the connect hooks behind it", function()
    local proxied = compose.policy({ policies[2], policies[1] }, { what = "p.lua", proxied = true })
    assert.equal("a", proxied.accept { ip = "a" })
    assert.is_nil(proxied.accept { ip = "a", proxy = false })
    assert.equal("a", proxied.connect { ip = "a", proxy = {} })
    assert.equal("first", proxied.connect { ip = "a" })
    local behind = compose.policy(policies, { what = "p.lua", proxied = true })
    assert.equal("first", behind.connect { ip = "a", proxy = {} })
  end)

  it("makes no connect hook where no proxy is believed", function()
    assert.is_nil(compose.policy({ policies[2] }, { what = "p.lua" }).connect)
    assert.equal(2, #compose.list({ policies[2] }, { what = "p.lua", proxied = true }))
    assert.equal(1, #compose.list({ policies[2] }, { what = "p.lua" }))
  end)
end)

describe("compose.list", function()
  it("tells the hooks in force, in the order of a connection's life", function()
    assert.same({ { name = "accept", f }, { name = "connect", g, f }, { name = "filter.up", f },
      { name = "filter.down", g }, { name = "close", f, g } },
      compose.list({ { close = f, filter = { up = f } },
        { accept = f, connect = g, close = g, filter = { down = g } } },
        { what = "p.lua", choose = f }))
  end)
end)
