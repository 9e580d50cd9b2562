"""Another program that writes at a steady rate, whatever becomes of it; prints when it sent what.

Usage: python writer.py URI DATABASE RATE SECONDS
"""

import json
import sys
import time

from pymongo import MongoClient

TOGETHER = 30
CONVERSATIONS = 100


def main():
    uri, database, rate, seconds = sys.argv[1:]
    with MongoClient(uri) as client:
        messages = client[database].messages
        sent, started = [], time.time()
        for number in range(int(rate) * int(seconds) // TOGETHER):
            time.sleep(max(0.0, started + number * TOGETHER / int(rate) - time.time()))
            first = number * TOGETHER
            sent.append(time.time())
            messages.insert_many([_message(first + n) for n in range(TOGETHER)], ordered=False)
    print(json.dumps({"sent": sent, "seconds": time.time() - started}))


def _message(number):
    conversation, sequence = number % CONVERSATIONS, number // CONVERSATIONS + 1
    return {"_id": f"acme:c-{conversation}:{sequence:010d}", "tenant_id": "acme", "content": "hello " * 10}


if __name__ == "__main__":
    main()
