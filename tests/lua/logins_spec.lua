-- Users and passwords (lua/penstock/logins.lua), and base64 as HTTP clients send them.
local base64 = require "penstock.base64"
local logins = require "penstock.logins"

local function from_text(text)
  return logins(function(path) return text, not text and "cannot read " .. path or nil end).new "users"
end

local from_table = logins(function() error "not asked" end).new

describe("logins", function()
  it("let in whom they know, with the right password only", function()
    local check = from_table { alice = "secret", bob = "s" }
    assert.is_true(check("alice", "secret"))
    assert.is_true(check("bob", "s"))
    for _, pair in ipairs { { "alice", "s" }, { "alice", "" }, { "alice", "secret\0" }, { "alice", "secretsecret" },
      { "alice", "Secret" }, { "bob", "secret" }, { "bob", "ss" }, { "carol", "\0" }, { "", "" },
      { "Alice", "secret" } } do
      assert.is_false(check(pair[1], pair[2]), pair[1] .. ":" .. pair[2])
    end
  end)

  it("come from a file of lines, where passwords may hold colons", function()
    local check = from_text "# people\nalice:se:cret\r\n\nbob: s \n"
    assert.is_true(check("alice", "se:cret"))
    assert.is_true(check("bob", " s "))
    assert.is_false(check("# people", ""))
    assert.is_true(from_text "last:line"("last", "line"))
  end)

  it("are refused whole when one is wrong, without a word of what stands there", function()
    local wrong = {
      ["a:hidden\nhidden\n"] = "users, line 2: write user:password",
      ["a:hidden\n:hidden\n"] = "users, line 2: a user is a text of 1 to 255 bytes without a colon",
      ["a:\n"] = "users, line 1: a password is a text of 1 to 255 bytes",
      [("a:%s"):format(("h"):rep(256))] = "users, line 1: a password is",
      ["a:hidden\n\na:hidden"] = 'users, line 3: the user "a" is given twice',
      ["# nobody\n"] = "there is no user in users",
    }
    for text, right in pairs(wrong) do
      local ok, why = pcall(from_text, text)
      assert.is_false(ok)
      assert.matches(right, why, 1, true)
      assert.is_nil((why:find "hid"))
    end
    for _, users in ipairs { {}, { [1] = "a" }, { a = 5 }, { a = "" }, { ["a:b"] = "c" } } do
      assert.is_false(pcall(from_table, users))
    end
    assert.is_false(pcall(from_table, 5))
    assert.matches("cannot read users", select(2, pcall(from_text, nil)))
  end)
end)

describe("base64", function()
  it("is read as RFC 4648 writes it", function()
    local known = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", ["\0\255\251"] = "AP/7" }
    for bytes, text in pairs(known) do assert.equal(bytes, base64.decode(text)) end
  end)

  it("is none when it could be written otherwise", function()
    for _, text in ipairs { "Zg=", "Zg", "Zh==", "Zm9=", "Z===", "====", "Zm9v Zg==", "Zg==Zg==", "Zm-v", "Zg==\n" } do
      assert.is_nil(base64.decode(text), text)
    end
  end)
end)
