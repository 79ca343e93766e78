"""The wire formats, each passed through natively: one file reads what is asked, and what is answered.

`base`       what a format is, and the checks that all share
`chat`       OpenAI Chat Completions
`gemini`     Gemini generateContent, streamed and whole, and countTokens; `gemini_input` reads what is asked
`messages`   Anthropic Messages and count_tokens; `messages_input` reads what is asked
`responses`  OpenAI Responses; `responses_input` reads what is asked
`table`      which provider speaks which format, and at which route
"""
