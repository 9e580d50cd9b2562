async def test_one_message_round_trip(acme):
    from convostore import ConversationDocument, MessageDocument

    c = await acme.conversations.create(ConversationDocument.start(user_id="u"))
    await acme.messages.append(c.conversation_id, MessageDocument.user("hi"))
    assert [m.content for m in (await acme.messages.history(c.conversation_id)).items] == ["hi"]
