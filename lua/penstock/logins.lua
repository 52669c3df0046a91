-- Users and passwords, from a table or a file. Nothing here prints a password, or a line of the file.
local bit = require "bit"
local byte, find, format, gmatch, match = string.byte, string.find, string.format, string.gmatch, string.match
local error, next, type = error, next, type
local bor, bxor = bit.bor, bit.bxor

local MAX = 255 -- bytes, as SOCKS5 has it

local function fail(...) error(format(...), 0) end

-- Takes as long whatever the two differ in: only the length of what was given tells on it.
local function is_same(given, secret)
  local difference, n = bxor(#given, #secret), #secret
  for i = 1, #given do
    difference = bor(difference, bxor(byte(given, i), byte(secret, (i - 1) % n + 1)))
  end
  return difference == 0
end

local function check_pair(where, user, password)
  if type(user) ~= "string" or user == "" or #user > MAX or find(user, "[:%c]") then
    fail("%s: a user is a text of 1 to %d bytes without a colon", where, MAX)
  end
  if type(password) ~= "string" or password == "" or #password > MAX or find(password, "%c") then
    fail("%s: a password is a text of 1 to %d bytes", where, MAX)
  end
end

-- The lines user:password of a text; empty ones and those that begin with # are left out.
local function parse(path, text)
  local users, n = {}, 0
  for line in gmatch(text, "([^\n]*)\n?") do
    n = n + 1
    line = match(line, "^(.-)\r?$")
    if line ~= "" and not find(line, "^#") then
      local where = format("%s, line %d", path, n)
      local user, password = match(line, "^([^:]*):(.*)$")
      if not user then fail("%s: write user:password", where) end
      check_pair(where, user, password)
      if users[user] then fail('%s: the user "%s" is given twice', where, user) end
      users[user] = password
    end
  end
  return users
end

-- make(read_private) -> module. read_private(path) gives the text of a file that others cannot read, or nil and what is
-- wrong.
return function(read_private)
  local logins = {}

  local function from_file(path)
    local text, why = read_private(path)
    if not text then fail("%s", why) end
    return parse(path, text)
  end

  -- new(users) -> check(user, password) -> bool. `users` is a table of passwords by user, or the path of a file with
  -- lines user:password. Raises, without position, what is wrong with it.
  function logins.new(users)
    local secrets = {}
    if type(users) == "string" then
      secrets = from_file(users)
    elseif type(users) == "table" then
      for user, password in next, users do
        check_pair("users", user, password)
        secrets[user] = password
      end
    else
      fail('users is a table { name = "password" }, or the path of a file with lines user:password, not a %s',
        type(users))
    end
    if next(secrets) == nil then fail("there is no user%s", type(users) == "string" and " in " .. users or "") end
    return function(user, password)
      local secret = secrets[user]
      local same = is_same(password, secret or "\0") -- as long for a user that is not there
      return same and secret ~= nil
    end
  end

  return logins
end
