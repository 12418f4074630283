-- KEYS[1] dirty buckets of a type. ARGV: an age in microseconds, then buckets, each with the time of its mark.
-- Removes a bucket if its mark still has that time and is older than the age. The server's clock determines the age.
local time = redis.call('TIME')
local before = time[1] * 1000000 + time[2] - tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] and tonumber(ARGV[i + 1]) < before then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
return 1
