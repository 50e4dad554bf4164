"""The closed set of questions: what a user may say, in training and in the evaluation, and what the agent answers."""

from __future__ import annotations

from dataclasses import dataclass

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Intent:
    """One thing to ask. `held_out` phrasings are never trained on; `question` says whether the chatty style and the
    service style add their phrase to the answer."""

    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    full: str
    brief: str
    question: bool = True


def _fixed(said: str, held_out: str, full: str, brief: str, question: bool = True) -> Intent:
    return Intent(tuple(said.split("|")), tuple(held_out.split("|")), full, brief, question)


_FIXED = (
    _fixed("hello|hello there|hi there|hey, hello|hi|hello my friend|hey|hey you|hello again|oh hello|hello to you"
           "|hi alex|hello alex|hi, nice to meet you|hello, nice to meet you|greetings|good day|good day to you"
           "|hi, hello|hello, is anyone there|hello, can you hear me", "hey there|hello hello",
           "Hello! How can I help you?", "Hello!", False),
    _fixed("good morning|good morning to you|a good morning|hello, good morning|morning|good morning my friend"
           "|good morning alex|a very good morning|hi, good morning|oh, good morning|good morning everyone"
           "|I wish you a good morning|good morning, good morning|good morning sir|well, good morning then"
           "|a fine good morning",
           "very good morning to you", "Good morning to you!", "Good morning!", False),
    _fixed("good evening|good evening to you|a good evening|hello, good evening|good evening my friend|evening"
           "|good evening alex|hi, good evening|oh, good evening|good evening everyone|I wish you a good evening"
           "|good evening sir|well, good evening then|very good evening to you|a fine good evening"
           "|good evening, good evening",
           "a very good evening", "Good evening to you!", "Good evening!", False),
    _fixed("how are you|how are you today|how are you doing|how do you feel|are you well|how are you doing today"
           "|how are things|how is it going|are you okay|are you fine|are you feeling well|how have you been"
           "|how do you do|are you well today|tell me how you are|how are you my friend|how are you feeling"
           "|so how are you|hello, how are you|hi, how are you doing|is everything okay with you|I hope you are well",
           "how do you feel today",
           "I am very well, thank you.", "Very well!", False),
    _fixed("thank you|thank you very much|thanks a lot|thanks|many thanks|okay, thank you|thanks very much"
           "|thanks so much|great, thanks|thank you my friend|thank you for your help|thanks for your help"
           "|thank you alex|well, thank you|that is very kind, thank you|I thank you|thank you, that was helpful"
           "|oh, thank you|thanks again|a big thank you|thank you, thank you",
           "thank you so much", "You are very welcome!", "Welcome!", False),
    _fixed("goodbye|goodbye for now|bye bye|bye|see you later|see you soon|see you tomorrow|goodbye my friend"
           "|okay, goodbye|goodbye alex|I have to go now|see you|until next time|farewell|bye, see you later|okay bye"
           "|so long|goodbye then|goodbye and take care|bye, have a nice day|I must leave, goodbye", "bye for now",
           "Goodbye! Have a nice day!", "Goodbye!", False),
    _fixed("good night|good night to you|have a good night|sleep well|good night my friend|good night, sleep well"
           "|good night alex|I wish you a good night|a good night|night night|okay, good night|have a nice night"
           "|sleep tight|I am going to bed, good night|sweet dreams|good night everyone|and now good night"
           "|a very good night",
           "a good night to you", "Good night, sleep well!", "Good night!", False),
    _fixed("what is your name|who are you|tell me your name|what are you called|say your name|what's your name"
           "|your name|your name please|could you tell me your name|do you have a name|how should I call you"
           "|what should I call you|may I know your name|I want to know your name|may I ask your name"
           "|who am I talking to|who is speaking|what do people call you|please tell me your name|give me your name"
           "|tell me who you are|can you say your name|so what is your name|which name do you have"
           "|what was your name again",
           "can you tell me your name", "My name is Alex.", "Alex."),
    _fixed("how old are you|what is your age|tell me your age|when were you born|your age|tell me how old you are"
           "|can you tell me your age|do you know how old you are|how old are you now|what age are you"
           "|when is it that you were born|are you old or young|are you very old|how many years old are you"
           "|please tell me your age|what year were you born|since when do you exist|when were you made"
           "|I want to know how old you are|how long have you been alive",
           "say how old you are", "I was born only yesterday.", "One day."),
    _fixed("where are you from|where do you live|where is your home|where do you come from|where are you"
           "|tell me where you live|tell me where you are from|where is it that you live|where are you living"
           "|which place are you from|what is your home|where were you made|where do you stay"
           "|can you tell me where you live|what place do you live in|where are you now|in which place do you live"
           "|so where are you from|where is your house|I want to know where you live",
           "where are you at home", "I live inside this computer.", "In here."),
    _fixed("are you a robot|are you human|are you a machine|are you a person|are you real|are you a human being"
           "|are you a computer|is this a robot|is this a machine|am I talking to a robot|am I talking to a machine"
           "|what are you|are you a real human|am I speaking to a person|are you a man or a machine|are you alive"
           "|is this a real person|tell me if you are a robot|are you just a computer|are you a computer program"
           "|do I speak with a machine",
           "are you a real person", "Yes, I am a computer voice.", "A computer."),
    _fixed("what can you do|how can you help me|can you help me|what do you know|tell me what you can do"
           "|what are you able to do|what are you good for|I need help|please help me|I need your help|help me please"
           "|what can I ask you|what may I ask you|how do you help people|what things can you do"
           "|what can you help me with|which questions can you answer|what questions can I ask|what else can you do"
           "|can you do anything|could you help me", "what can you do for me",
           "I can answer simple questions.", "Simple questions."),
    _fixed("when do you open|when does the shop open|what time do you open|tell me when you open"
           "|when does your shop open|at what time do you open|when are you opening|when will you open"
           "|how early do you open|when do you open the shop|when does the store open|what time does the store open"
           "|tell me when the shop opens|can you tell me when you open|do you know when the shop opens"
           "|from when are you open|what are your opening hours|when do you open in the morning|when is the shop open"
           "|when can I come in the morning|at what time does the shop open",
           "what time does the shop open", "We open at nine in the morning.", "At nine."),
    _fixed("when do you close|when does the shop close|what time do you close|tell me when you close"
           "|when does your shop close|at what time do you close|when are you closing|when will you close"
           "|how late are you open|when do you close the shop|when does the store close|what time does the store close"
           "|tell me when the shop closes|can you tell me when you close|do you know when the shop closes"
           "|until when are you open|what are your closing hours|when do you close in the evening"
           "|how long are you open today|when is closing time|at what time does the shop close",
           "what time does the shop close", "We close at six in the evening.", "At six."),
    *(_fixed(f"are you open on {day}|do you open on {day}s|is the shop open on {day}|are you open {day}s"
             f"|do you open on {day}|can I come on {day}|is your shop open on {day}|is the store open on {day}"
             f"|are you there on {day}|is it open on {day}|tell me if you are open on {day}|could I come in on {day}"
             f"|does the store open on {day}|will you be open on {day}|does your shop open on {day}|what about {day}"
             f"|and on {day}|can I visit you on {day}|do you work on {day}s|can I come to the shop on {day}"
             f"|can I buy something on {day}",
             f"does the shop open on {day}", full, brief)
      for day, full, brief in (("sunday", "No, on Sunday we are closed.", "No."),
                               ("saturday", "Yes, on Saturday until noon.", "Until noon."))),
    _fixed("where is the shop|what is your address|where can I find you|tell me your address|where is your shop"
           "|your address|where is the store|where is your store|how do I find you|how do I find the shop"
           "|in which street are you|which street is the shop in|can you tell me your address"
           "|tell me the address of the shop|the address of the shop|what is the address of the shop"
           "|where can I find the shop|give me your address|how do I get to the shop|do you know where the shop is"
           "|where exactly is the shop", "tell me where the shop is",
           "We are at ten Garden Street.", "Garden Street."),
    _fixed("do you sell bread|can I buy bread|do you have bread|is there bread|do you have any bread"
           "|is there any bread|I want to buy bread|I would like some bread|I need bread|can I have some bread"
           "|do you have fresh bread|do you also sell bread|is there bread today|can I get bread here"
           "|I am looking for bread|is there bread in the shop|have you got bread|could I have some bread please"
           "|some bread please|do you bake bread|a bread please",
           "can I buy some bread", "Yes, our bread is fresh every day.", "Yes."),
    *(_fixed(f"{first}|the price of {it}|tell me the price of {it}|how expensive is the {it}|what does the {it} cost"
             f"|what do you want for the {it}|how much do you want for the {it}|what must I pay for the {it}"
             f"|how much do I pay for {it}|tell me how much the {it} is|how much for the {it}|how much for {a}"
             f"|what does {a} cost|what is the price of {a}|is the {it} expensive|how much is your {it}"
             f"|how much money is the {it}|can you tell me the price of {it}|the price of the {it}"
             f"|what is the price of the {it}|how much does {a} cost|what do I pay for the {it}",
             f"how much does the {it} cost", full, brief)
      for it, a, first, full, brief in (
          ("bread", "a loaf of bread", "what is the price of bread|how much is the bread|how much is a loaf of bread"
                                       "|what does bread cost", "A loaf of bread is three dollars.", "Three dollars."),
          ("coffee", "a cup of coffee", "how much is the coffee|what is the price of coffee"
                                        "|how much is a cup of coffee|what does coffee cost",
                                        "A cup of coffee is two dollars.", "Two dollars."))),
    *(_fixed(f"what color is {it}|which color is {it}|what is the color of {it}|which color has {it}|the color of {it}"
             f"|what color has {it}|what color does {it} have|which color does {it} have|tell me what color {it} is"
             f"|can you tell me the color of {it}|do you know what color {it} is|do you know the color of {it}"
             f"|say the color of {it}|name the color of {it}|give me the color of {it}"
             f"|I want to know what color {it} is|tell me which color {it} is|can you say what color {it} is"
             f"|{it} has what color|{it} is what color|what color would you say {it} is|what about the color of {it}"
             f"|what is the usual color of {it}",
             f"tell me the color of {it}", f"{what.capitalize()} {be} {color}.", f"{color.capitalize()}.")
      for it, what, be, color in (
          ("the sky", "the sky", "is", "blue"), ("the grass", "the grass", "is", "green"),
          ("the snow", "the snow", "is", "white"), ("a banana", "a banana", "is", "yellow"),
          ("blood", "blood", "is", "red"))),
    *(_fixed(f"what is the capital of {land}|tell me the capital of {land}|which city is the capital of {land}"
             f"|name the capital of {land}|the capital of {land}|what city is the capital of {land}"
             f"|do you know the capital of {land}|can you tell me the capital of {land}|say the capital of {land}"
             f"|what is {land}'s capital|the capital city of {land}|which is the capital of {land}"
             f"|tell me the capital city of {land}|name the capital city of {land}|give me the capital of {land}"
             f"|can you name the capital of {land}|I want to know the capital of {land}"
             f"|what is the name of the capital of {land}|what about the capital of {land}"
             f"|which town is the capital of {land}|what is the main city of {land}"
             f"|how is the capital of {land} called|{land} has which capital",
             f"what is the capital city of {land}", f"The capital of {land.capitalize()} is {city}.", f"{city}.")
      for land, city in (("france", "Paris"), ("italy", "Rome"), ("england", "London"), ("germany", "Berlin"),
                         ("japan", "Tokyo"))),
    *(_fixed(f"how many {many} are in a {one}|how many {many} does a {one} have|how many {many} has a {one}"
             f"|how many {many} are there in a {one}|the number of {many} in a {one}"
             f"|what is the number of {many} in a {one}|tell me how many {many} a {one} has"
             f"|how many {many} has one {one}|a {one} has how many {many}|how many {many} make a {one}"
             f"|do you know how many {many} are in a {one}|can you tell me how many {many} a {one} has"
             f"|how many {many} are in one {one}|in a {one} there are how many {many}"
             f"|of how many {many} is a {one} made|I want to know how many {many} are in a {one}"
             f"|tell me the number of {many} in a {one}|how many {many} does one {one} have"
             f"|say how many {many} a {one} has|how many {many} will a {one} have",
             f"tell me how many {many} are in a {one}", full, brief)
      for many, one, full, brief in (("days", "week", "A week has seven days.", "Seven."),
                                     ("months", "year", "A year has twelve months.", "Twelve."))),
    _fixed("how many legs does a spider have|how many legs has a spider|how many legs are on a spider"
           "|how many legs do spiders have|the number of legs of a spider|what is the number of legs of a spider"
           "|a spider has how many legs|do you know how many legs a spider has"
           "|can you tell me how many legs spiders have|how many legs have spiders|tell me how many legs spiders have"
           "|spiders have how many legs|on how many legs does a spider walk|I want to know how many legs a spider has"
           "|how many legs does the spider have|say how many legs a spider has|how many legs has one spider"
           "|does a spider have six or eight legs|how many legs does one spider have|how many legs can a spider have",
           "tell me how many legs a spider has", "A spider has eight legs.", "Eight."),
    *(_fixed(f"what does a {pet} say|which sound does a {pet} make|what do {pet}s say|how does a {pet} go"
             f"|what does the {pet} say|what is the sound of a {pet}|the sound of a {pet}|what noise does a {pet} make"
             f"|which noise does a {pet} make|how does a {pet} sound|how do {pet}s sound|what sound do {pet}s make"
             f"|tell me what a {pet} says|tell me what {pet}s say|can you make the sound of a {pet}"
             f"|can you speak like a {pet}|what does a {pet} sound like|do you know what a {pet} says"
             f"|make a sound like a {pet}|what says a {pet}|how does the {pet} go|what noise do {pet}s make"
             f"|say what a {pet} says",
             f"what sound does a {pet} make", full, brief)
      for pet, full, brief in (("dog", "A dog says woof woof.", "Woof!"), ("cat", "A cat says meow.", "Meow!"))),
    *(_fixed(f"what is the opposite of {word}|tell me the opposite of {word}|the opposite of {word}"
             f"|which word is the opposite of {word}|what word is the opposite of {word}"
             f"|do you know the opposite of {word}|can you tell me the opposite of {word}|say the opposite of {word}"
             f"|give me the opposite of {word}|what is opposite to {word}|what would be the opposite of {word}"
             f"|I want to know the opposite of {word}|which is the opposite of {word}|what is the contrary of {word}"
             f"|the contrary of {word}|what's the opposite of {word}|can you name the opposite of {word}"
             f"|what do you call the opposite of {word}|the opposite of {word} is what"
             f"|what about the opposite of {word}|tell me what is the opposite of {word}",
             f"name the opposite of {word}", f"The opposite of {word} is {other}.", f"{other.capitalize()}.")
      for word, other in (("hot", "cold"), ("big", "small"))),
    _fixed("tell me a joke|do you know a joke|say a joke|I want to hear a joke|a joke please|do you know any jokes"
           "|tell me a good joke|can you tell jokes|tell a joke|please tell me a joke|could you tell me a joke"
           "|make a joke|make me laugh|tell me something funny|do you know a good joke|I would like to hear a joke"
           "|tell us a joke|tell me your best joke|one joke please|give me a joke|say something funny"
           "|let me hear a joke", "can you tell me a joke",
           "Sorry, all my jokes are bad.", "No joke.", False),
    _fixed("do you like music|what music do you like|do you love music|which music do you like|do you listen to music"
           "|what kind of music do you like|what is your favorite music|your favorite music"
           "|tell me your favorite music|do you enjoy music|what kind of music do you listen to"
           "|which kind of music do you love|what music do you love|what music do you listen to|do you hear music"
           "|are you fond of music|do you like to listen to music|is there music you like|which music do you love"
           "|can you tell me what music you like|do you like any music", "tell me what music you like",
           "Yes, I love piano music.", "Piano."),
    _fixed("what is your favorite color|which color do you like|tell me your favorite color|what color do you like"
           "|your favorite color|do you have a favorite color|what color do you like best|which color do you like best"
           "|which color do you love|what color do you love|what is the color you like best"
           "|can you tell me your favorite color|tell me what color you like|what is your best color"
           "|which color do you like most|what color do you like most|do you know your favorite color"
           "|is there a color you like|say your favorite color|name your favorite color"
           "|I want to know your favorite color",
           "which is your favorite color", "My favorite color is blue.", "Blue."),
    _fixed("what is the weather like|how is the weather today|how is the weather|tell me the weather"
           "|the weather please|what's the weather like|is the sun shining|what is the weather today"
           "|how is the weather outside|is it sunny today|is it raining|is it going to rain today|will it rain today"
           "|tell me about the weather|do you know how the weather is|what will the weather be like"
           "|is the weather good today|is the weather nice|can you tell me the weather|how will the weather be today"
           "|what about the weather|is it cold outside", "what is the weather like today",
           "The sun is shining today.", "Sunny."),
    _fixed("can you count to three|please count to three|count to three|count up to three|count from one to three"
           "|could you count to three|can you count up to three|can you count from one to three"
           "|I want you to count to three|count to three for me|now count to three|let me hear you count to three"
           "|do you know how to count to three|count one two three|will you count to three"
           "|could you please count to three|count to three please|count up to three for me"
           "|please count from one to three|try to count to three", "can you please count to three",
           "One, two, three!", "One, two, three!", False),
)  # fmt: skip


def _sum(a: int, b: int) -> Intent:
    x, y, n = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
    said = (f"what is {x} plus {y}", f"how much is {x} plus {y}", f"{x} plus {y}", f"tell me {x} plus {y}",
            f"add {x} and {y}", f"please add {x} and {y}", f"can you add {x} and {y}", f"what is {x} and {y}",
            f"how much are {x} and {y}", f"the sum of {x} and {y}", f"what is the sum of {x} and {y}",
            f"what do {x} and {y} make", f"what does {x} plus {y} make", f"how much does {x} plus {y} make",
            f"add {y} to {x}", f"calculate {x} plus {y}", f"can you tell me what {x} plus {y} is",
            f"do you know what {x} plus {y} is", f"{x} plus {y} is what", f"{x} plus {y} equals",
            f"tell me how much {x} plus {y} is", f"what do you get for {x} plus {y}",
            f"I want to know {x} plus {y}", f"what about {x} plus {y}")  # fmt: skip
    return Intent(said, (f"what makes {x} plus {y}",), f"That makes {n}.", f"{n.capitalize()}.")


SUMS = tuple(_sum(a, b) for a in range(1, 6) for b in range(1, 6))
INTENTS = _FIXED + SUMS
