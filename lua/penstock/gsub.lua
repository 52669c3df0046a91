-- string.gsub with a quick way for plain text: when the pattern has no magic character and the replacement is a
-- string without "%" (or a number), `replace` (core/script/text.c) does it. All else goes to the original, patterns
-- with a zero byte too, where LuaJIT takes it for the end.
local find, type = string.find, type

-- gsub(original, replace, check_stack) -> the function to put in its place. check_stack() raises before the C stack
-- is used up: each gsub whose callback calls gsub puts 8 KiB there.
return function(original, replace, check_stack)
  local plain, n_plain = {}, 0 -- pattern -> true | false

  local function is_plain(pattern)
    if n_plain == 256 then plain, n_plain = {}, 0 end
    local is = pattern ~= "" and not find(pattern, "[%^%$%(%)%%%.%[%]%*%+%-%?%z]")
    plain[pattern], n_plain = is, n_plain + 1
    return is
  end

  return function(s, pattern, by, n)
    if type(s) == "string" and type(pattern) == "string" and
      (n == nil or type(n) == "number" and n > -1e9 and n < 1e9 and n % 1 == 0) then
      local is = plain[pattern]
      if is == nil then is = is_plain(pattern) end
      if is then
        local kind = type(by)
        if kind == "number" or kind == "string" and not find(by, "%", 1, true) then
          return replace(s, pattern, by, n)
        end
      end
    end
    check_stack()
    return original(s, pattern, by, n)
  end
end
